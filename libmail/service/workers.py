"""Threads for work that may block for long, on a lock or on a file system that does not answer.

There are as many as there is work at the same time, so that none waits for another. They are kept.
Each acts as a user of its own where the work says so, see `libmail.privileges`.

Only work on the same mailbox file waits, in a lane: to find out again and again whether the lock of
another thread has gone costs time that the file is not used in. A thread goes on with what waits in
its lane by itself.

Outside of lanes no thread waits for the disk where the kernel can tell the loop what is on it: with
threads that do, and all of which want the interpreter lock afterwards, a delivery took up to twice
the time. Work that writes files says by `Steps` what has to be on disk before it goes on, perhaps
in another thread, as the same user.
"""

import asyncio
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final, Generic, TypeVar, cast

from libmail.files.commit import GroupCommit, Steps, at_once
from libmail.net.wakeup import Wakeup
from libmail.privileges import BY_THREAD, Actor, Identity

__all__ = ["Job", "Workers"]

_STACK: Final = 1 << 19  # octets; the usual 8 MiB count against service_memory_limit

T = TypeVar("T")


class Job(Wakeup, Generic[T]):
    """A piece of work, to be awaited at once, which gives its result, or raises its error."""

    __slots__ = ("_failed", "_result", "fd", "frees", "lane")

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: str) -> None:
        super().__init__(loop)
        self.lane = lane
        self.frees = True  # its thread has nothing more to do after it
        self.fd = -1  # what has to be on disk before it goes on; -1: it is over
        self._result: T | None = None
        self._failed: Exception | None = None

    def do(self, actor: Actor) -> None:
        """Called by a thread. Never raises."""
        raise NotImplementedError

    def __await__(self) -> Generator[Wakeup, None, T]:  # type: ignore[override]  # has a result
        self._asyncio_future_blocking = True
        yield self
        return cast(T, self._result)

    def result(self) -> None:
        """Called by the task when it is woken. Raises what the work did."""
        super().result()
        if self._failed is not None:
            raise self._failed


class _Acting(Job[T]):
    """Work that is done in one go."""

    __slots__ = ("_work",)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[Actor], T], lane: str
    ) -> None:
        super().__init__(loop, lane)
        self._work = work

    def do(self, actor: Actor) -> None:
        """Called by the thread."""
        try:
            self._result = self._work(actor)
        except Exception as err:  # noqa: BLE001  it is raised to who asked for the work
            self._failed = err


class _Writing(Job[T]):
    """Work by steps. error: what fsync(2) of `fd` said, to be set before it goes on."""

    __slots__ = ("_begin", "_steps", "_user", "error")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, begin: Callable[[Actor], Steps[T]], lane: str
    ) -> None:
        super().__init__(loop, lane)
        self.error: BaseException | None = None
        self._begin = begin
        self._steps: Steps[T] | None = None
        self._user: Identity | None = None  # as whom it goes on

    def do(self, actor: Actor) -> None:
        """Called by a thread: until something has to be on disk, or to the end."""
        self.fd = -1
        try:
            self.fd = self._step(actor)
            self._user = actor.user
        except StopIteration as end:
            self._result = end.value
        except Exception as err:  # noqa: BLE001  it is raised to who asked for the work
            self._failed = err

    def _step(self, actor: Actor) -> int:
        if self._steps is None or self._user is None:
            self._steps = self._begin(actor)
            return next(self._steps)
        try:
            actor.become(self._user)
        except OSError:
            os._exit(1)  # what it has begun would be cleaned up as somebody else
        error, self.error = self.error, None
        return next(self._steps) if error is None else self._steps.throw(error)


class Workers:
    """Owned by one event loop; to be created in the process that uses it (after fork)."""

    def __init__(self, *, threads: bool = True) -> None:
        """threads: without them all work is done here and now."""
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._queue: SimpleQueue[Job[object]] = SimpleQueue()
        self._lock = threading.Lock()  # held for a moment, never while something may block
        self._lanes: dict[str, deque[Job[object]]] = {}  # what waits, where something is under way
        self._done: deque[Job[object]] = deque()
        self._told = False  # the loop knows that something is done
        self._idle = 0
        self._actor = Actor()
        self._commit: GroupCommit | None = None
        threading.stack_size(_STACK)

    @classmethod
    def acting(cls) -> "Workers":
        """For work that acts as users: in threads, where those have ids of their own."""
        return cls(threads=BY_THREAD)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, done as who the process is; other tasks run meanwhile.

        Raises OSError, too, where no thread is to be had.
        """

        def as_oneself(actor: Actor) -> T:
            actor.restore()
            return work()

        return await self.act(as_oneself)

    def act(self, work: Callable[[Actor], T], lane: str = "") -> Job[T]:
        """The same of work that says whom it acts as. It finds whoever was acted as last.

        lane: one piece of work after the other. "": none.
        """
        return self._take(_Acting(self._loop, work, lane))

    def write(self, work: Callable[[Actor], Steps[T]], lane: str = "") -> Job[T]:
        """The same of work by steps, which has its lane for itself until the last of them.

        In a lane they are taken at once: who comes next waits for the disk in any case, and for a
        way by the loop on top of it.
        """
        if lane or not self._threads:
            return self.act(lambda actor: at_once(work(actor)), lane)
        return self._take(_Writing(self._loop, work, lane))

    def _take(self, job: Job[T]) -> Job[T]:
        lane = job.lane
        if not self._threads:
            self._loop.call_soon(self._do_here, job)
        elif not (lane and self._waits(job)):
            self._provide()
            if lane:
                self._lanes[lane] = deque()
            self._queue.put(job)  # type: ignore[arg-type]  # nothing is put into it
        return job

    def _waits(self, job: Job[T]) -> bool:
        """Whether a thread takes it when it is done with what is under way in the lane."""
        with self._lock:
            waiting = self._lanes.get(job.lane)
            if waiting is not None:
                waiting.append(job)  # type: ignore[arg-type]  # as above
        return waiting is not None

    def _next(self, lane: str) -> Job[object] | None:
        """In a thread: what it is to go on with."""
        with self._lock:
            waiting = self._lanes[lane]
            if waiting:
                return waiting.popleft()
            del self._lanes[lane]
        return None

    def _do_here(self, job: Job[T]) -> None:
        job.do(self._actor)
        self._actor.restore()
        job.wake()

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
        """In a thread: do it, and tell the loop, once for all that is done until it looks."""
        actor = self._actor
        job: Job[object] | None = None
        while True:
            job = job or self._queue.get()
            job.do(actor)
            over = job.fd < 0
            following = self._next(job.lane) if job.lane and over else None
            job.frees = following is None
            self._done.append(job)
            job = following  # and forget the one before, for as long as there is nothing to do
            if not self._told:
                self._told = True
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._told = False  # first: what is done from here on may come too late for this round
        while self._done:
            job = self._done.popleft()
            self._idle += job.frees
            if isinstance(job, _Writing) and job.fd >= 0:
                self._synchronize(job)
            else:
                job.wake()

    def _synchronize(self, job: _Writing[object]) -> None:
        if self._commit is None:
            self._commit = GroupCommit()
        self._commit.fsync(job.fd).add_done_callback(partial(self._go_on, job))

    def _go_on(self, job: _Writing[object], future: "asyncio.Future[None]") -> None:
        job.error = future.exception()
        with suppress(OSError):  # no new thread: one of those that there are does it
            self._provide()
        self._queue.put(job)
