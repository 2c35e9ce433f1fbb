"""The connection to a client, on an asyncio transport.

Two rules keep a client from monopolizing the process. A session with much to do yields to the
others (`give_way`), and nothing is read for it meanwhile. And nothing is read from a client that
does not read our replies: `read` waits until it has, for smtpd_timeout at most; then the connection
is cut.
"""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol, cast

from libmail.ipc.messages import TlsSession
from libmail.net.ends import Ends, ends_of
from libmail.net.wakeup import Wakeup

__all__ = [
    "Channel",
    "ClientChannel",
    "ClientGone",
    "ClientSilent",
    "RequestLimit",
    "ServerStopping",
]

_MOST_PENDING: Final = 1 << 16  # octets received while the session is busy
_COUNT: Final = struct.Struct("i")


class ClientGone(Exception):
    """The client closed the connection, or it broke."""


class ClientSilent(Exception):
    """The client took longer than smtpd_timeout, to send or to take our replies."""


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

    async def give_way(self) -> None:
        """Let others have their turn. Raises as `read`."""

    def has_sent(self) -> bool:
        """Whether the client has sent something that was not read yet."""

    def discard_input(self) -> None:
        """Forget what has come and was not read yet: it came before the client may be believed."""

    def close(self) -> None:
        """Close after what was written has been sent."""


class RequestLimit:
    """A time limit for a whole request, not for each wait: smtpd_per_request_deadline.

    left: seconds. Content gives time back, at smtpd_min_data_rate, up to the limit.
    """

    __slots__ = ("_limit", "_rate", "left")

    def __init__(self, limit: float, rate: int) -> None:
        """limit: seconds for a request. rate: octets of content a second."""
        self._limit = limit
        self._rate = rate
        self.left = limit

    def begin(self) -> None:
        """Another request begins."""
        self.left = self._limit

    def spend(self, seconds: float) -> None:
        """The client was waited for."""
        self.left = max(self.left - seconds, 0.0)

    def earn(self, octets: int) -> None:
        """So much content has come."""
        self.left = min(self.left + octets / self._rate, self._limit)


class ClientChannel(asyncio.Protocol):
    """A client's connection. `deadline` is looked at now and then by whoever owns it.

    request_limit: holds instead of the limit for each wait, where there is one. passed: another
    program has accepted it. said: lines that the client has said to that one. tls: one session, if
    that was within TLS, which yet another program goes on to carry.
    """

    __slots__ = (
        "_blocked",
        "_closing",
        "_connected",
        "_data",
        "_ended",
        "_eof",
        "_idle",
        "_kept",
        "_limit",
        "_loop",
        "_over",
        "_paused",
        "_stopping",
        "_wakeup",
        "deadline",
        "ends",
        "passed",
        "request_limit",
        "said",
        "tls",
        "transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: float,
        connected: Callable[["ClientChannel"], None],
        ended: Callable[["ClientChannel"], None],
        ends: Ends | None = None,
    ) -> None:
        """limit: smtpd_timeout. connected: starts the session.

        ended: called once, when the connection is closed and its session, if any, is over.
        ends: None for those that the socket has.
        """
        self.ends = Ends() if ends is None else ends
        self.passed = ends is not None
        self.said: tuple[str, ...] = ()
        self.tls: tuple[TlsSession, ...] = ()
        self._loop = loop
        self._limit = limit
        self._connected: Callable[[ClientChannel], None] | None = connected
        self._ended = ended
        self.transport: asyncio.Transport | None = None
        self._data: list[bytes] = []
        self._kept = 0  # octets of _data that nobody waited for
        self._eof = False
        self._paused = False
        self._blocked = False  # the client does not take what we send
        self._idle = False
        self._closing = False
        self._over = False
        self._stopping = False
        self._wakeup = Wakeup(loop)
        self.deadline = 0.0  # of the loop's clock, for who waits, or for closing
        self.request_limit: RequestLimit | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)
        if not self.passed:
            self.ends = ends_of(transport)
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(self)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._data.append(data)
        if not self._wakeup.wake():
            self._kept += len(data)
            if self._kept > _MOST_PENDING:
                self._pause()  # let the client wait, rather than fill our memory

    def eof_received(self) -> bool | None:
        """Called by the loop. A client that has said all may still wait for our replies."""
        self._eof = True
        self._wakeup.wake()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop; also when the connection could not be set up."""
        self._eof = True
        self._blocked = False
        self.transport = None
        if self._over or self._connected is not None:
            self._connected = None
            self._ended(self)
        self._wakeup.wake()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._blocked = False
        self._wakeup.wake()

    def _pause(self) -> None:
        transport = self.transport
        if not (self._paused or self._eof or transport is None or transport.is_closing()):
            self._paused = True
            transport.pause_reading()

    # for the session

    def write(self, data: bytes) -> None:
        """Send; does not wait: `read` and `give_way` do, when the client is slow."""
        if self.transport is not None:
            self.transport.write(data)

    async def read(self, *, idle: bool) -> bytes:
        """What the client sent next. Raises ClientGone, ClientSilent, ServerStopping."""
        self._idle = idle
        if self._blocked:
            await self._written()
        if not self._data:
            if self._eof or self.transport is None:
                raise ClientGone
            if idle and self._stopping:
                raise ServerStopping
            if self._paused and not self.transport.is_closing():
                self._paused = False
                self.transport.resume_reading()
            if self.request_limit is None:
                self.deadline = self._loop.time() + self._limit
                await self._wakeup
            else:
                await self._wait()
            if not self._data:
                raise ClientGone
        data = b"".join(self._data)  # which is the only piece itself, if there is one
        self._data.clear()
        self._kept = 0
        return data

    async def _wait(self) -> None:
        whole, began = self.request_limit, self._loop.time()
        self.deadline = began + (self._limit if whole is None else whole.left)
        try:
            await self._wakeup
        finally:
            if whole is not None:
                whole.spend(self._loop.time() - began)

    async def _written(self) -> None:
        """Wait until the client has taken most of what was sent. Raises ClientGone, ..."""
        self._pause()
        while self._blocked:
            await self._wait()
        if self.transport is None:
            raise ClientGone

    async def give_way(self) -> None:
        """Let others have their turn. Raises as `read`."""
        self._pause()
        await asyncio.sleep(0)
        if self._blocked:
            self._idle = False
            await self._written()

    def has_sent(self) -> bool:
        """Whether the client has sent something that was not read yet."""
        if self._data:
            return True
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None:
            return False
        waiting = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(_COUNT.size))
        return bool(_COUNT.unpack(waiting)[0])

    def discard_input(self) -> None:
        """Forget what has come and was not read yet."""
        self._data.clear()
        self._kept = 0

    def close(self) -> None:
        """Close after what was written has been sent, or the client did not take it in time."""
        if not self._closing:
            self._closing = True
            self.deadline = self._loop.time() + self._limit
            if self.transport is not None:
                self.transport.close()

    # for its owner

    def limit(self, seconds: float) -> None:
        """Another limit than smtpd_timeout from now on."""
        self._limit = seconds

    def session_over(self) -> None:
        """Nobody uses the connection any more."""
        self.close()
        self._over = True
        if self.transport is None:
            self._ended(self)

    def check_deadline(self, now: float) -> None:
        """End the wait of a session whose client has been silent for too long."""
        if now <= self.deadline or not (self._closing or self._wakeup.waiting):
            return
        if self._blocked or self._closing:
            self._cut()
        if not self._closing:
            self._wakeup.fail(ClientSilent())

    def stop(self) -> None:
        """End the wait of an idle session, now or when it comes to it."""
        self._stopping = True
        if self._closing:
            self._cut()
        elif self._idle:
            self._wakeup.fail(ServerStopping())

    def _cut(self) -> None:
        """Close, whether or not what was written has been sent."""
        if self.transport is not None:
            self.transport.abort()
