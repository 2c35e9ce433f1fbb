"""Threads for table drivers whose client libraries block.

Called by: the types over SQL, LDAP, memcached and their like. A thread begins with the first lookup
that is awaited in an event loop, so never before the last fork. Without an event loop, in a
command-line tool, the lookup simply runs, and nothing suspends (`libmail.tables.table.run_now`).

Whatever a driver needs (a connection, a cursor) is made in the thread that uses it, and no other
thread touches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, Generic, TypeVar

from libmail.tables.table import TableFailed

__all__ = ["Worker"]

_WAITING: Final = 1000

S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")


class _State(Generic[S]):
    """What one thread needs: made when it is needed first."""

    def __init__(self, start: Callable[[], S], stop: Callable[[S], None]) -> None:
        self._start = start
        self._stop = stop
        self._made: list[S] = []

    def get(self) -> S:
        if not self._made:
            self._made.append(self._start())
        return self._made[0]

    def rest(self, rest: Callable[[S], None]) -> None:
        for made in self._made:
            rest(made)

    def end(self) -> None:
        while self._made:
            self._stop(self._made.pop())


class _Job(Generic[S, R]):
    """One lookup, and the loop in which its outcome is awaited."""

    def __init__(self, work: Callable[[S], R], loop: asyncio.AbstractEventLoop) -> None:
        self.outcome: asyncio.Future[R] = loop.create_future()
        self._work = work
        self._loop = loop

    def run(self, state: _State[S]) -> None:
        """Called in the thread."""
        if self.outcome.done():
            return  # whoever asked has given up
        try:
            value = self._work(state.get())
        except Exception as error:  # noqa: BLE001  raised again where the lookup is awaited
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, value)

    def _tell(self, what: Callable[[T], None], argument: T) -> None:
        try:
            self._loop.call_soon_threadsafe(what, argument)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _succeed(self, value: R) -> None:
        if not self.outcome.done():
            self.outcome.set_result(value)

    def _fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Worker(Generic[S]):
    """Runs the lookups of one table, `threads` at a time.

    start: makes what a thread needs; called in that thread, before its first lookup, and again
    before the next one where it raised something, which is what the lookup then raises.
    stop: gives that back when the table is closed; called in the same thread.
    """

    def __init__(
        self,
        spec: str,
        start: Callable[[], S],
        stop: Callable[[S], None] = lambda _: None,
        *,
        threads: int = 1,
        waiting: int = _WAITING,
        timeout: float = 100.0,
        idle: float = 0.0,
        rest: Callable[[S], None] = lambda _: None,
    ) -> None:
        """spec: the table's, for messages. waiting: lookups that may wait for a thread.

        timeout: seconds after which a lookup is given up. The thread stays with it for as long
        as the library blocks, so the library should be given a shorter limit.
        rest: called in a thread that has had nothing to do for `idle` seconds (0: never), with
        what `start` made: time to close connections.
        """
        self._spec = spec
        self._start = start
        self._stop = stop
        self._limit = threads
        self._waiting = waiting
        self._timeout = timeout
        self._idle = idle
        self._rest = rest
        self._jobs: SimpleQueue[Callable[[_State[S]], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._awaited = 0
        self._direct = _State(start, stop)

    async def run(self, work: Callable[[S], R]) -> R:
        """The value of `work`, called with what `start` made for the thread.

        Raises what `work` raises, and `TableRetry` when the table is too busy or too slow.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return work(self._direct.get())
        if self._jobs.qsize() >= self._waiting:
            raise TableFailed(self._spec, "too many lookups are waiting")
        job = _Job(work, loop)
        self._awaited += 1
        try:
            self._jobs.put(job.run)
            if len(self._threads) < min(self._limit, self._awaited):
                self._begin_thread()
            async with asyncio.timeout(self._timeout):
                return await job.outcome
        except TimeoutError:
            raise TableFailed(self._spec, f"no answer in {self._timeout:g} seconds") from None
        finally:
            self._awaited -= 1

    def _begin_thread(self) -> None:
        # A daemon thread: one that is stuck in its library does not keep the process from ending.
        thread = Thread(target=self._serve, name=self._spec, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        state = _State(self._start, self._stop)
        patience = self._idle or None
        while True:
            try:
                run = self._jobs.get(timeout=patience)
            except Empty:
                state.rest(self._rest)
                patience = None
                continue
            if run is None:
                break
            run(state)
            patience = self._idle or None
        state.end()

    def close(self) -> None:
        """Let each thread end when it is done with what it does."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()
        self._direct.end()
