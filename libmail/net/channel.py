"""The connection to a client.

It reads and writes its socket itself, which a `Poller` watches with those of all other clients: a
session is short, and an asyncio transport costs more than its dialogue.

Within TLS what is read is decrypted where it arrives, so that a session is resumed with what its
client has said, and never for a part of a record.

Two rules keep a client from monopolizing the process. A session with much to do yields to the
others (`give_way`), and nothing is read for it meanwhile. And nothing is read from a client that
does not read our replies: `read` waits until it has, for smtpd_timeout at most; then the connection
is cut.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol

from libmail.ipc.messages import TlsSession
from libmail.net.ends import Ends, ends_of
from libmail.net.layer import Layer
from libmail.net.poller import READ, WRITE, Poller
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
_READ: Final = 1 << 16
_HIGH: Final = 1 << 16  # octets not sent yet, from which the client counts as slow
_LOW: Final = 1 << 14  # to which they have to go down
_AT_ONCE: Final = int(socket.MSG_DONTWAIT)  # so that nobody has to make the socket non-blocking
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


class ClientChannel:
    """A client's connection. `deadline` is looked at now and then by whoever owns it.

    request_limit: holds instead of the limit for each wait, where there is one. passed: another
    program has accepted it. said: lines that the client has said to that one. tls: one session, if
    that was within TLS, which yet another program goes on to carry.
    """

    __slots__ = ("_blocked", "_closing", "_data", "_ended", "_eof", "_events", "_fd", "_idle",
                 "_kept", "_layer", "_limit", "_loop", "_open", "_out", "_over", "_paused",
                 "_poller", "_sock", "_stopping", "_wakeup", "deadline", "ends", "passed",
                 "request_limit", "said", "tls")  # fmt: skip

    def __init__(
        self,
        sock: socket.SocketType,
        poller: Poller,
        limit: float,
        ended: Callable[["ClientChannel"], None],
        ends: Ends | None = None,
    ) -> None:
        """sock: owned from now on. limit: smtpd_timeout.

        ended: called once, when the connection is closed and its session is over.
        ends: None for those that the socket has.
        """
        self.ends = ends_of(sock) if ends is None else ends
        self.passed = ends is not None
        self.said: tuple[str, ...] = ()
        self.tls: tuple[TlsSession, ...] = ()
        self._sock = sock
        self._open = True
        self._fd = sock.fileno()
        self._poller = poller
        self._loop = poller.loop
        self._limit = limit
        self._ended = ended
        self._data: list[bytes] = []
        self._kept = 0  # octets of _data that nobody waited for
        self._layer: Layer | None = None
        self._out = b""  # what the socket did not take yet
        self._events = READ  # that the poller watches for
        self._eof = self._paused = self._idle = self._closing = self._over = self._stopping = False
        self._blocked = False  # the client does not take what we send
        self._wakeup = Wakeup(poller.loop)
        self.deadline = 0.0  # of the loop's clock, for who waits, or for closing
        self.request_limit: RequestLimit | None = None
        poller.watch(self._fd, READ, self)

    # for the poller

    def ready(self, events: int) -> None:
        """Called by the poller."""
        if (events != READ or self._events != READ) and not self._may_read(events):
            return
        try:
            data = self._sock.recv(_READ, _AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        if not data:
            self._eof = True  # a client that has said all may still wait for our replies
            self._watch()
            self._wakeup.wake()
            return
        if self._layer is not None:
            data = self._decrypted(self._layer, data)
            if not data:
                self.write(b"")  # a client that says nothing may wait for the library's answer
                return
        self._data.append(data)
        if not self._wakeup.wake():
            self._kept += len(data)
            if self._kept > _MOST_PENDING:
                self._pause()  # let the client wait, rather than fill our memory

    def _decrypted(self, layer: Layer, data: bytes) -> bytes:
        """What the client has said; b"" for nothing yet, or nothing more."""
        data = layer.decrypt(data)
        if layer.ended:
            self.write(b"")  # an alert, perhaps
            self._eof = True
            self._watch()
            if not data:
                self._wakeup.wake()
        elif not data and self.request_limit is None:
            self.deadline = self._loop.time() + self._limit  # it is not silent
        return data

    def _may_read(self, events: int) -> bool:
        """Send what waits, if that is what happened; whether there may be something to read."""
        if events != READ and self._events & WRITE:
            self._flush()
        return events != WRITE and bool(self._events & READ)

    def expire(self) -> None:
        """Called by the poller for deadlines that it was told of, which those here are not."""

    def _flush(self) -> None:
        """Send what waits."""
        try:
            self._out = self._out[self._sock.send(self._out, _AT_ONCE) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        if self._closing and not self._out:
            self._end()
            return
        self._watch()
        if self._blocked and len(self._out) <= _LOW:
            self._blocked = False
            self._wakeup.wake()

    def _pause(self) -> None:
        self._paused = True
        self._watch()

    def _watch(self) -> None:
        """Have the poller watch for what is of interest now."""
        events = 0 if self._paused or self._eof else READ
        if self._out:
            events |= WRITE
        before, self._events = self._events, events
        if events == before or not self._open:
            return
        if not before:
            self._poller.watch(self._fd, events, self)
        elif events:
            self._poller.change(self._fd, events)
        else:
            self._poller.unwatch(self._fd)

    def _end(self) -> None:
        """Close, whether or not what was written has been sent."""
        if not self._open:
            return
        self._open = False
        if self.passed and self._events:
            self._poller.unwatch(self._fd)  # the other program may still have it open
        else:
            self._poller.forget(self._fd)
        self._sock.close()
        self._events = 0
        self._eof = True
        self._blocked = False
        if self._over:
            self._ended(self)
        elif self._wakeup.waiting:
            self._loop.call_soon(self._wakeup.wake)

    # for the session

    def write(self, data: bytes) -> None:
        """Send; does not wait: `read` and `give_way` do, when the client is slow."""
        if self._layer is not None and not (data := self._layer.protect(data)):
            return
        if not self._out:
            try:
                data = data[self._sock.send(data, _AT_ONCE) :]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._end()
                return
        if data:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """Send it when the client takes it."""
        self._out += data
        self._blocked = len(self._out) > _HIGH
        self._watch()

    async def read(self, *, idle: bool) -> bytes:
        """What the client sent next. Raises ClientGone, ClientSilent, ServerStopping."""
        self._idle = idle
        if self._data or self._eof or self._blocked or self._paused or self._stopping:
            data = await self._read_more()
            if data:
                return data
        if self.request_limit is None:
            self.deadline = self._loop.time() + self._limit
            await self._wakeup
        else:
            await self._wait()
        if not self._data:
            raise ClientGone
        return self._data.pop()  # the one piece that has woken us

    async def _read_more(self) -> bytes:
        """What has come meanwhile; b"": it has to be waited for. Raises as `read`."""
        if self._blocked:
            await self._written()
        if not self._data:
            self._before_waiting()
        data = b"".join(self._data)  # which is the only piece itself, if there is one
        self._data.clear()
        self._kept = 0
        return data

    def _before_waiting(self) -> None:
        """Raises ClientGone, ServerStopping."""
        if self._eof:
            raise ClientGone
        if self._idle and self._stopping:
            raise ServerStopping
        if self._paused:
            self._paused = False
            self._watch()

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
        if not self._open:
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
        if not self._open:
            return False
        waiting = fcntl.ioctl(self._fd, termios.FIONREAD, bytes(_COUNT.size))
        return bool(_COUNT.unpack(waiting)[0])

    def discard_input(self) -> None:
        """Forget what has come and was not read yet."""
        self._data.clear()
        self._kept = 0

    def close(self) -> None:
        """Close after what was written has been sent, or the client did not take it in time."""
        if not self._closing:
            self._closing = True
            if self._layer is not None:
                self._out += self._layer.end()
                self._flush()
            if self._out:
                self._pause()
                self.deadline = self._loop.time() + self._limit
            else:
                self._end()

    # for its owner

    def enter(self, layer: Layer) -> None:
        """Have all go through a layer whose handshake is complete, from what has come since on."""
        self._layer = layer
        received = b"".join(self._data)
        self.discard_input()
        if data := self._decrypted(layer, received):
            self._data.append(data)
            self._kept = len(data)

    def limit(self, seconds: float) -> None:
        """Another limit than smtpd_timeout from now on."""
        self._limit = seconds

    def session_over(self) -> None:
        """Nobody uses the connection any more."""
        self.close()
        self._over = True
        if not self._open:
            self._ended(self)

    def check_deadline(self, now: float) -> None:
        """End the wait of a session whose client has been silent for too long."""
        if now <= self.deadline or not (self._closing or self._wakeup.waiting):
            return
        if self._blocked or self._closing:
            self._end()
        if not self._closing:
            self._wakeup.fail(ClientSilent())

    def stop(self) -> None:
        """End the wait of an idle session, now or when it comes to it."""
        self._stopping = True
        if self._closing:
            self._end()
        elif self._idle:
            self._wakeup.fail(ServerStopping())
