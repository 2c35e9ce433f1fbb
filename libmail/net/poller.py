"""The sockets of all sessions behind one epoll descriptor, and their time limits behind one timer.

An event loop charges a handle, half a dozen system calls and a timer for each socket that it is
asked to watch. A session lives for five packets, so that would be much of its cost. Here a socket
is registered once, with one system call, and the loop watches but the one descriptor.
"""

import asyncio
import math
import select
from typing import Final, Protocol

__all__ = ["READ", "WRITE", "Poller", "Watched"]

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
_BURST: Final = 64  # events taken at a time
_GRAIN: Final = 0.05  # seconds between looks at the time limits, at least


class Watched(Protocol):
    """What a socket's events are for. deadline: by the loop's clock, 0 for none."""

    deadline: float

    def ready(self, events: int) -> None:
        """Something happened; READ, WRITE, and others for an error or the end."""

    def expire(self) -> None:
        """The deadline has passed. Called once; it is 0 now."""


class Poller:
    """Watches sockets on behalf of the running event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: Final = loop
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._sweep_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(self._epoll.fileno(), self._poll)

    def watch(self, fd: int, events: int, watched: Watched) -> None:
        """Begin to watch a socket."""
        self._epoll.register(fd, events)
        self._watched[fd] = watched

    def change(self, fd: int, events: int) -> None:
        """Other events of a socket that is watched."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Stop to watch a socket that stays open."""
        del self._watched[fd]
        self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """The same for a socket about to be closed: the kernel then stops to watch it."""
        self._watched.pop(fd, None)

    def _poll(self) -> None:
        watched = self._watched
        found = self._epoll.poll(0, _BURST)
        # Found before anything is done: a descriptor may be closed on the way, and used again.
        for one, events in [(watched.get(fd), events) for fd, events in found]:
            if one is not None:
                one.ready(events)

    def limit(self, watched: Watched, seconds: float) -> None:
        """Set the deadline of something watched, now or soon; 0: none."""
        if not seconds:
            watched.deadline = 0.0
            return
        deadline = watched.deadline = self.loop.time() + seconds
        if deadline < self._sweep_at:
            self._sweep_later(deadline)

    def _sweep_later(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._sweep_at = when
        self._timer = self.loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        """Let pass what is due, and come again for the next."""
        now, soonest = self.loop.time(), math.inf
        self._sweep_at, self._timer = math.inf, None
        for one in list(self._watched.values()):
            deadline = one.deadline
            if not deadline:
                continue
            if deadline <= now + 0.001:  # the loop's clock counts milliseconds
                one.deadline = 0.0
                one.expire()
            elif deadline < soonest:
                soonest = deadline
        if soonest < math.inf:
            self._sweep_later(max(soonest, now + _GRAIN))
