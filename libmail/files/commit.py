"""fsync without waiting, so that the kernel groups the commits of all messages in flight.

In code that writes files and may run in threads, `Steps` keep the order of what is done readable:
a generator yields each descriptor that is to be on disk before it goes on, and whoever runs it
sees to that, in whatever way.
"""

import asyncio
import os
from collections.abc import Generator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, TypeAlias, TypeVar

from libmail.files.aio import AT_ONCE, KernelFsync

__all__ = ["GroupCommit", "Steps", "at_once"]

_BATCH: Final = 64

T = TypeVar("T")
Request = tuple[int, "asyncio.Future[None]"]
Steps: TypeAlias = Generator[int, None, T]
"""Yields descriptors that are to be on disk, see above; errors of fsync(2) are thrown into it."""


def at_once(steps: Steps[T]) -> T:
    """Take all steps here and now. Raises what they raise."""
    try:
        fd = next(steps)
        while True:
            error = _fsync(fd)
            fd = next(steps) if error is None else steps.throw(error)
    except StopIteration as end:
        result: T = end.value
        return result


def _settle(future: "asyncio.Future[None]", error: OSError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


class GroupCommit:
    """`await fsync(fd)`; concurrent calls share wake-ups and journal commits.

    By asynchronous I/O of the kernel, or in threads where there is none. Owned by one event loop;
    to be created in the process that uses it (after fork).
    """

    def __init__(self, threads: int | None = None) -> None:
        """threads: use so many threads, whatever the kernel can do."""
        loop = asyncio.get_running_loop()
        kernel = _kernel(loop) if threads is None else None
        self._way = kernel or _Threads(loop, threads or 2)

    def fsync(self, fd: int) -> "asyncio.Future[None]":
        """A future that completes when the file is on disk, or has the OSError.

        The file stays open until then, or until the future is cancelled.
        """
        return self._way.fsync(fd)


def _kernel(loop: asyncio.AbstractEventLoop) -> "_Kernel | None":
    try:
        return _Kernel(loop, KernelFsync())
    except OSError:
        return None


class _Kernel:
    """The futures of what the kernel has under way.

    What comes in one turn of the loop is begun at its end, by one system call: begun one by one,
    each would have its worker of the kernel interrupt this process at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, aio: KernelFsync) -> None:
        self._loop = loop
        self._aio = aio
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        self._new: list[Request] = []
        loop.add_reader(aio.eventfd, self._collect)

    def fsync(self, fd: int) -> "asyncio.Future[None]":
        """Begin soon."""
        if not self._new:
            self._loop.call_soon(self._begin)
        future = self._loop.create_future()
        self._new.append((fd, future))
        return future

    def _begin(self) -> None:
        # Who has given up may have closed its file.
        new, self._new = [one for one in self._new if not one[1].done()], []
        while new:
            first = self._number + 1
            files = [(fd, first + at) for at, (fd, _) in enumerate(new[:AT_ONCE])]
            try:
                begun = self._aio.submit(files)
            except OSError as err:
                if isinstance(err, BlockingIOError) and self._waiting:
                    self._new = new  # until one of those under way has ended
                    return
                fd, future = new.pop(0)  # fsync(2) says why, or does it
                _settle(future, _fsync(fd))
                continue
            for (_, number), (_, future) in zip(files[:begun], new, strict=False):
                self._waiting[number] = future
            self._number += begun
            del new[:begun]

    def _done(self, number: int, error: int) -> None:
        _settle(self._waiting.pop(number), OSError(error, os.strerror(error)) if error else None)

    def _collect(self) -> None:
        self._aio.collect(self._done)
        if self._new:
            self._begin()


class _Threads:
    """Threads that take all requests there are, and report them in one go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self._loop = loop
        self._queue: SimpleQueue[Request] = SimpleQueue()
        for _ in range(threads):
            Thread(target=self._work, name="fsync", daemon=True).start()

    def fsync(self, fd: int) -> "asyncio.Future[None]":
        """Begin."""
        future = self._loop.create_future()
        self._queue.put((fd, future))
        return future

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            try:
                while len(batch) < _BATCH:
                    batch.append(self._queue.get_nowait())
            except Empty:
                pass
            results = [(future, _fsync(fd)) for fd, future in batch]
            try:
                self._loop.call_soon_threadsafe(_settle_all, results)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


def _settle_all(results: list[tuple["asyncio.Future[None]", OSError | None]]) -> None:
    for future, error in results:
        _settle(future, error)


def _fsync(fd: int) -> OSError | None:
    try:
        os.fsync(fd)
    except OSError as err:
        return err
    return None
