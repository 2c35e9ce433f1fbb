"""Connections to the delivery agents of one transport.

A connection carries one delivery at a time. An entry is taken from the scheduler only for a
connection that an agent serves (it has said AgentReady, or answered before), so that what waits for
a busy transport waits in the scheduler, where its order can still change. No task and no future per
delivery: the protocol calls back.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from daemons.qmgr.jobs import Entry
from libmail.ipc.codec import Unframer
from libmail.ipc.messages import CODEC, AgentReady, DeliverReply, Leaving
from libmail.net.unix_stream import UnixStream, connect_unix

_MOST_PENDING: Final = 20  # connections that wait for an agent
_BACKLOG_PAUSE: Final = 1.0  # seconds, when the agents' listen queue is full
_SWEEP: Final = 1.0


@dataclass(frozen=True, slots=True)
class AgentTimes:
    """Seconds: a connection unused for `idle` is closed, one older than `life` not used again.

    greeting: how long to wait for the first agent to answer. answer: for the end of a delivery.
    """

    idle: float = 5.0
    life: float = 1000.0
    greeting: float = 1000.0
    answer: float = 18000.0


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What the pool asks and tells the queue manager.

    take: the next entry, its encoded request and the open file that goes with it, if there is any.
    ready: whether there may be one. waiting: how many there are to take, counted up to the
    argument.
    replied: an entry is done. crashed: an agent broke off in the middle of one. unreachable: no
    agent can be reached; the text says why.
    """

    take: Callable[[], tuple[Entry, bytes, int] | None]
    ready: Callable[[], bool]
    waiting: Callable[[int], int]
    replied: Callable[[Entry, DeliverReply], None]
    crashed: Callable[[Entry, str], None]
    unreachable: Callable[[str], None]


class AgentConnection(asyncio.Protocol):
    """One connection; entry: what is being delivered over it."""

    __slots__ = ("_pool", "_unframer", "born", "entry", "leaving", "ready", "since", "transport")

    def __init__(self, pool: "AgentPool", now: float) -> None:
        self._pool = pool
        self._unframer = Unframer(CODEC)
        self.transport: UnixStream | None = None
        self.entry: Entry | None = None
        self.ready = False
        self.leaving = False
        self.born = now
        self.since = now  # of the last request or reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(UnixStream, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        unframer = self._unframer
        unframer.receive_data(data)
        while unframer.units:
            event = unframer.units.popleft()
            if isinstance(event, DeliverReply) and self.entry is not None:
                self._pool.on_reply(self, event)
            elif isinstance(event, AgentReady) and not self.ready:
                self._pool.on_ready(self)
            elif isinstance(event, Leaving):
                self._pool.on_leaving(self)
            else:
                self._pool.on_broken(self, f"unexpected {type(event).__name__}")
                return
        if unframer.error is not None:
            self._pool.on_broken(self, str(unframer.error))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.transport = None
        self._pool.on_lost(self, "premature disconnect")

    def send(self, entry: Entry, request: bytes, fd: int, now: float) -> None:
        """Begin a delivery. fd: is closed."""
        self.entry = entry
        self.since = now
        if self.transport is not None:
            self.transport.write_with(request, (fd,))
        os.close(fd)

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()


class AgentPool:
    """The connections to one transport's socket at `path`."""

    def __init__(self, path: str, dispatch: Dispatch, times: AgentTimes) -> None:
        self.path = path
        self._dispatch = dispatch
        self._times = times
        self._loop = asyncio.get_running_loop()
        self._idle: list[AgentConnection] = []
        self._all: set[AgentConnection] = set()
        self._pending = 0  # connections that no agent serves yet
        self._sweeper: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> int:
        """Deliveries under way."""
        return len(self._all) - len(self._idle) - self._pending

    def wake(self) -> None:
        """There may be something to deliver."""
        idle = self._idle
        while idle and self._dispatch.ready():
            connection = idle.pop()
            if connection.transport is None or connection.transport.is_closing():
                continue
            if not self._assign(connection):
                idle.append(connection)
                return
        if self._retry is None and (waiting := self._dispatch.waiting(_MOST_PENDING)):
            self._grow(waiting)

    def _grow(self, waiting: int) -> None:
        """Ask for more agents, the more the more are at work already."""
        most = min(waiting, 1 + self.busy)
        while self._pending < most and self._open():
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def _open(self) -> bool:
        """Ask for one more agent. Returns whether that may be done again."""
        connection = AgentConnection(self, self._loop.time())
        try:
            connect_unix(self.path, connection)
        except BlockingIOError:
            self._retry = self._loop.call_later(_BACKLOG_PAUSE, self._try_again)
            return False
        except OSError as err:
            self._dispatch.unreachable(err.strerror or str(err))
            return False
        self._all.add(connection)
        self._pending += 1
        return True

    def _try_again(self) -> None:
        self._retry = None
        self.wake()

    def _assign(self, connection: AgentConnection) -> bool:
        taken = self._dispatch.take()
        if taken is None:
            return False
        connection.send(*taken, self._loop.time())
        return True

    def on_ready(self, connection: AgentConnection) -> None:
        """An agent serves the connection."""
        connection.ready = True
        self._pending -= 1
        if self._assign(connection):
            self.wake()
        else:
            connection.since = self._loop.time()
            self._idle.append(connection)

    def on_reply(self, connection: AgentConnection, reply: DeliverReply) -> None:
        """A delivery is over."""
        entry, connection.entry = connection.entry, None
        if entry is not None:
            self._dispatch.replied(entry, reply)
        now = connection.since = self._loop.time()
        if connection.leaving or now - connection.born > self._times.life:
            self._close(connection)
            self.wake()
        elif self._assign(connection):
            self.wake()  # the window may be wider now
        else:
            self._idle.append(connection)

    def on_leaving(self, connection: AgentConnection) -> None:
        """The agent's process makes room for another one, after the delivery at hand."""
        connection.leaving = True
        if connection in self._idle:
            self._idle.remove(connection)
            self._close(connection)

    def on_broken(self, connection: AgentConnection, reason: str) -> None:
        """An agent does not keep to the protocol."""
        self.on_lost(connection, f"malformed response: {reason}")
        connection.abort()

    def on_lost(self, connection: AgentConnection, reason: str) -> None:
        """The connection is gone."""
        if connection not in self._all:
            return
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not connection.ready:
            connection.ready = True
            self._pending -= 1
            if not self._all:
                self._dispatch.unreachable(reason)
        entry, connection.entry = connection.entry, None
        if entry is not None:
            self._dispatch.crashed(entry, reason)

    def _close(self, connection: AgentConnection) -> None:
        self._all.discard(connection)
        if connection.transport is not None:
            connection.transport.close()

    def _sweep(self) -> None:
        self._sweeper = None
        now, times = self._loop.time(), self._times
        for connection in [c for c in self._idle if now - c.since >= times.idle]:
            self._idle.remove(connection)
            self._close(connection)
        served = any(connection.ready for connection in self._all)
        for connection in list(self._all):
            waited = now - connection.since
            if not connection.ready and not served and waited >= times.greeting:
                self.on_lost(connection, "timeout connecting to transport")
                connection.abort()
            elif connection.entry is not None and waited >= times.answer:
                self.on_lost(connection, "timeout receiving delivery status")
                connection.abort()
        if self._all:
            self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def close(self) -> None:
        """Close everything; deliveries under way are forgotten."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._retry is not None:
            self._retry.cancel()
        for connection in list(self._all):
            connection.entry = None
            self._close(connection)
        self._idle.clear()
