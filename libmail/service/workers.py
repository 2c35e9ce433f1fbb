"""Threads for work that may block for long, on a lock or on a file system that does not answer.

There are as many as there is work at the same time, so that none waits for another. They are kept.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, TypeVar

__all__ = ["Workers"]

_STACK: Final = 1 << 19  # octets; the usual 8 MiB count against service_memory_limit

T = TypeVar("T")


class Workers:
    """Owned by one event loop; to be created in the process that uses it (after fork)."""

    def __init__(self, *, threads: bool = True) -> None:
        """threads: without them all work is done here and now."""
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = 0
        threading.stack_size(_STACK)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; other tasks run meanwhile. Raises OSError, too."""
        if not self._threads:
            return work()
        self._provide()
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(lambda: self._work(work, future))
        return await future

    def _provide(self) -> None:
        """Have a thread for one more piece of work."""
        if self._idle:
            self._idle -= 1
            return
        thread = threading.Thread(target=self._serve, name="worker", daemon=True)
        try:
            thread.start()
        except RuntimeError as err:  # out of memory or processes
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from err

    def _serve(self) -> None:
        while True:
            self._queue.get()()

    def _work(self, work: Callable[[], T], future: "asyncio.Future[T]") -> None:
        """In a thread: do it, and tell the loop."""
        settle: Callable[[], None]
        try:
            settle = partial(future.set_result, work())
        except Exception as err:  # noqa: BLE001  it is raised to who asked for the work
            settle = partial(future.set_exception, err)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._done, future, settle)

    def _done(self, future: "asyncio.Future[T]", settle: Callable[[], None]) -> None:
        self._idle += 1
        if not future.done():
            settle()
