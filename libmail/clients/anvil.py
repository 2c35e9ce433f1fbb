"""Reports events of clients to anvil(8), which counts them.

Called by: smtpd. Asks: `private/anvil`. If anvil does not answer, no limit applies: a counter that
is down must not stop mail, nor one that hangs: it is left alone for a while then.

All events of a process go over one connection, pipelined, and are answered in order. anvil counts a
client's connections as long as that connection lasts: when the process dies, they are gone.
"""

import asyncio
from collections import deque
from typing import Final, cast

from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import CODEC, ClientCounts, ClientEvent, Leaving
from libmail.log import LOG

__all__ = ["AnvilClient"]

_NOTHING: Final = ClientCounts(0, 0)
_PATIENCE: Final = 10.0  # seconds to wait for an answer, during which the client waits, too
_REST: Final = 60.0  # seconds in which it is not asked again after it gave none
_MOST_WAITING: Final = 10_000


class _Link(asyncio.Protocol):
    """One connection to anvil."""

    def __init__(self) -> None:
        self._unframer = Unframer(CODEC)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[ClientCounts]] = deque()
        self._leaving = False

    @property
    def usable(self) -> bool:
        """Whether events can be sent."""
        there = self._transport is not None and not self._leaving
        return there and len(self._waiting) < _MOST_WAITING

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._unframer.receive_data(data)
        try:
            for message in self._unframer:
                self._take(message)
        except WireError as error:
            LOG.warning(f"anvil: {error}")
            self.close()

    def _take(self, message: object) -> None:
        if isinstance(message, Leaving):
            self._leaving = True
        elif isinstance(message, ClientCounts) and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(message)
        else:
            raise WireError(f"unexpected {type(message).__name__}")
        if self._leaving and not self._waiting and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.done():
                one.set_result(_NOTHING)

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, event: ClientEvent) -> None:
        """Send an event that has no answer."""
        if self._transport is not None:
            self._transport.write(CODEC.encode(event))

    def ask(self, event: ClientEvent) -> "asyncio.Future[ClientCounts]":
        """Send an event; its answer, zeros if the connection is lost."""
        answer: asyncio.Future[ClientCounts] = asyncio.get_running_loop().create_future()
        self.send(event)
        self._waiting.append(answer)
        return answer


class AnvilClient:
    """The client of anvil(8) in a process. path: of its socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._link: _Link | None = None
        self._opening = asyncio.Lock()
        self._silent_until = 0.0  # of the loop's clock

    async def count(self, event: str, ident: str, *, only_report: bool = False) -> ClientCounts:
        """Report an event. Returns the counts, zeros while anvil does not answer."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._silent_until:
            return _NOTHING
        link = self._link
        if link is None or not link.usable:
            link = await self._open()
            if link is None:
                return _NOTHING
        try:
            async with asyncio.timeout(_PATIENCE):
                return await link.ask(ClientEvent(event, ident, only_report))
        except TimeoutError:
            LOG.seldom(f"{self._path}: no answer in time")
            link.close()
            self._silent_until = loop.time() + _REST
            return _NOTHING

    def disconnect(self, ident: str) -> None:
        """A client whose connection was counted has disconnected."""
        if self._link is not None:
            self._link.send(ClientEvent("disconnect", ident))

    async def _open(self) -> _Link | None:
        async with self._opening:
            if self._link is not None and self._link.usable:
                return self._link
            loop = asyncio.get_running_loop()
            try:
                _, self._link = await loop.create_unix_connection(_Link, self._path)
            except OSError as error:
                LOG.seldom(f"connect to {self._path}", f": {error.strerror}")
                self._link = None
            return self._link

    def close(self) -> None:
        """Give up the connection: anvil forgets the clients that are connected."""
        if self._link is not None:
            self._link.close()
