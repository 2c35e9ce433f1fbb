"""fsync without waiting, so that the kernel groups the commits of all messages in flight."""

import asyncio
import os
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from libmail.queue.aio import AT_ONCE, KernelFsync

__all__ = ["GroupCommit"]

_BATCH: Final = 64

Request = tuple[int, "asyncio.Future[None]"]


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
        loop.add_reader(aio.eventfd, aio.collect, self._done)

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
            files = []
            for fd, future in new[:AT_ONCE]:
                self._number += 1
                self._waiting[self._number] = future
                files.append((fd, self._number))
            begun = self._aio.submit(files)
            for _, number in files[begun:]:
                del self._waiting[number]
            if begun < len(files):  # what the kernel does not take is done here and now
                fd, future = new[begun]
                _settle(future, _fsync(fd))
                begun += 1
            del new[:begun]

    def _done(self, number: int, error: int) -> None:
        _settle(self._waiting.pop(number), OSError(error, os.strerror(error)) if error else None)


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
