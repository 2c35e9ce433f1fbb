"""fsync without waiting, so that the kernel groups the commits of all messages in flight."""

import asyncio
import os
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from libmail.queue.aio import KernelFsync

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
        """A future that completes when the file is on disk, or has the OSError."""
        return self._way.fsync(fd)


def _kernel(loop: asyncio.AbstractEventLoop) -> "_Kernel | None":
    try:
        return _Kernel(loop, KernelFsync())
    except OSError:
        return None


class _Kernel:
    """The futures of what the kernel has under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, aio: KernelFsync) -> None:
        self._loop = loop
        self._aio = aio
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._number = 0
        loop.add_reader(aio.eventfd, aio.collect, self._done)

    def fsync(self, fd: int) -> "asyncio.Future[None]":
        """Begin; what the kernel does not take is done here and now."""
        future = self._loop.create_future()
        self._number += 1
        if self._aio.submit(fd, self._number):
            self._waiting[self._number] = future
        else:
            _settle(future, _fsync(fd))
        return future

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
