"""The connection to a client, as the session sees it, on an asyncio transport."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from libmail.service.wakeup import Wakeup

__all__ = ["Channel", "ClientChannel", "ClientGone", "ClientSilent", "ServerStopping"]

_MOST_PENDING: Final = 1 << 16  # octets received while the session is busy


class ClientGone(Exception):
    """The client closed the connection, or it broke."""


class ClientSilent(Exception):
    """The client took longer than smtpd_timeout."""


class ServerStopping(Exception):
    """The mail system is being stopped."""


class Channel(Protocol):
    """What a session needs of a connection."""

    def write(self, data: bytes) -> None:
        """Send; does not wait."""

    async def read(self, *, idle: bool) -> bytes:
        """What the client sent next. idle: between commands, where a stopping server may end it.

        Raises ClientGone, ClientSilent, ServerStopping.
        """

    def close(self) -> None:
        """Close after what was written has been sent."""

    def server_address(self) -> tuple[str, str]:
        """(address, port) of our end, "" where there is none."""


class ClientChannel(asyncio.Protocol):
    """A client's connection. `deadline` is looked at now and then by whoever owns it."""

    __slots__ = (
        "_connected",
        "_data",
        "_ended",
        "_eof",
        "_idle",
        "_limit",
        "_loop",
        "_paused",
        "_wakeup",
        "deadline",
        "transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: float,
        connected: Callable[["ClientChannel"], None],
        ended: Callable[["ClientChannel"], None],
    ) -> None:
        """limit: smtpd_timeout. connected: starts the session. ended: no session ever started."""
        self._loop = loop
        self._limit = limit
        self._connected: Callable[[ClientChannel], None] | None = connected
        self._ended = ended
        self.transport: asyncio.Transport | None = None
        self._data = b""
        self._eof = False
        self._paused = False
        self._idle = False
        self._wakeup = Wakeup(loop)
        self.deadline = 0.0  # of the loop's clock; 0: nobody waits

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._data = self._data + data if self._data else data
        if self._wakeup.waiting:
            self._wakeup.wake()
        elif len(self._data) > _MOST_PENDING and not self._paused and self.transport is not None:
            # The session is busy: let the client wait, rather than fill our memory.
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool | None:
        """Called by the loop. A client that has said all may still wait for our replies."""
        self._eof = True
        self._wakeup.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop; also when the connection could not be set up."""
        self._eof = True
        self.transport = None
        if self._connected is not None:
            self._connected = None
            self._ended(self)
        self._wakeup.wake()

    # for the session

    def write(self, data: bytes) -> None:
        """Send; does not wait: replies are short, and each waits for a command."""
        if self.transport is not None:
            self.transport.write(data)

    async def read(self, *, idle: bool) -> bytes:
        """What the client sent next. Raises ClientGone, ClientSilent, ServerStopping."""
        if not self._data:
            if self._eof or self.transport is None:
                raise ClientGone
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            self._idle = idle
            self.deadline = self._loop.time() + self._limit
            await self._wakeup
            self.deadline = 0.0
            if not self._data:
                raise ClientGone
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        """Close after what was written has been sent."""
        if self.transport is not None:
            self.transport.close()

    def client_address(self) -> tuple[str, str]:
        """(address, port) of the client."""
        return self._name("peername")

    def server_address(self) -> tuple[str, str]:
        """(address, port) of our end."""
        return self._name("sockname")

    def _name(self, which: str) -> tuple[str, str]:
        name = None if self.transport is None else self.transport.get_extra_info(which)
        if isinstance(name, tuple) and len(name) >= 2:
            return str(name[0]), str(name[1])
        return "", ""

    # for its owner

    def check_deadline(self, now: float) -> None:
        """End the wait of a session whose client has been silent for too long."""
        if self.deadline and now > self.deadline:
            self._wakeup.fail(ClientSilent())

    def stop(self) -> None:
        """End the wait of an idle session."""
        if self._idle:
            self._wakeup.fail(ServerStopping())
