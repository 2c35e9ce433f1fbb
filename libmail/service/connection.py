"""A connection between two programs of the mail system, on asyncio.

Some services are open to every user, and none may monopolize the process: nothing more is read from
a peer that has sent much until others had their turn, see `Connection.receive`.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import CODEC, Leaving
from libmail.net.unix_stream import StrayDescriptors, UnixStream
from libmail.net.wakeup import Wakeup

__all__ = [
    "LINGER",
    "UCRED",
    "AnswerLate",
    "Connection",
    "ConnectionLost",
    "Credentials",
    "Trigger",
    "peer_credentials",
]

_PAUSE_AT: Final = 1 << 20
_TURN: Final = 64  # messages, or so many times 16 KiB, before others have their turn
_PIECE: Final = 14  # 1 << _PIECE octets count as a message
_GATHER_AT: Final = 1 << 15  # octets from which the system call may put the parts together
LINGER: Final = 60.0
"""Seconds after which a closed connection drops output that its peer does not read."""
UCRED: Final = struct.Struct("iII")
"""struct ucred: process, user and group id."""

M = TypeVar("M")


class ConnectionLost(Exception):
    """The peer closed the connection, or it broke."""


class AnswerLate(ConnectionLost):
    """The connection was closed as no answer was received in time."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The process and user at the other end of a UNIX socket, from the kernel (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: socket.SocketType) -> Credentials:
    """The peer of a connected UNIX socket."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    return Credentials(*UCRED.unpack(data))


@dataclass(frozen=True, slots=True)
class Trigger:
    """Bytes that a trigger client wrote instead of a message, see postkick(1)."""

    data: bytes


class Connection(asyncio.Protocol):
    """Sends and receives messages and content chunks; one task uses it at a time.

    `receive` raises ConnectionLost at the end of the stream and WireError when the peer breaks
    the protocol (the connection is then closed).
    """

    def __init__(self, path: str = "", *, serving: bool = False) -> None:
        """path: of the socket, for the log. serving: this is the end that answers requests."""
        self.path = path
        self._serving = serving
        self._transport: asyncio.Transport | None = None
        self._unframer = Unframer(CODEC)
        self._units: Final = self._unframer.units
        self._unread = 0  # octets of these, or more
        self._error: Exception | None = None
        self._wakeup = Wakeup(asyncio.get_running_loop())
        self._drain_waiter: asyncio.Future[None] | None = None
        self._paused_reading = False
        self._paused_writing = False
        self._trigger = False
        self._leaving = False
        self._turn = 0
        self.begun = False  # something complete was received
        self.promise = ""  # what the service has said of the next exchange; for who asks it

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        if self._leaving:
            self.send(Leaving())
        self._wakeup.wake()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._error is not None:
            return
        self._turn += len(data) >> _PIECE
        if (self._trigger or not self._unframer.pending) and (self._trigger or data[0] & 0x7F):
            self._trigger = True
            self.begun = True
            self._units.append(Trigger(data))
        else:
            self._unframer.receive_data(data)
            self.begun = bool(self._units) or self.begun
            self._unread += len(data)
            if self._unread > _PAUSE_AT:
                self._pause_reading()
        self._wakeup.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._error is None:
            self._error = ConnectionLost(self.path)
        self._transport = None
        self._wakeup.wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._paused_writing = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pause_reading(self) -> None:
        transport = self._transport
        if not (self._paused_reading or transport is None or transport.is_closing()):
            self._paused_reading = True
            transport.pause_reading()

    def _resume_reading(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._paused_reading = False
            transport.resume_reading()

    def _require_transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionLost(self.path)
        return self._transport

    # for its user

    @property
    def usable(self) -> bool:
        """Whether another exchange may begin: open, and nothing unexpected was received."""
        return (
            self._transport is not None
            and self._error is None
            and not self._leaving
            and not self._units
            and not self._unframer.pending
            and not self._transport.is_closing()
        )

    @property
    def credentials(self) -> Credentials:
        """The process and user at the other end when it connected."""
        return peer_credentials(self._require_transport().get_extra_info("socket"))

    def is_from(self, users: frozenset[int]) -> bool:
        """Whether the other end belonged to one of these users when it connected."""
        return bool(users) and self.credentials.uid in users

    async def opened(self) -> None:
        """Wait until messages can be sent, for a session that speaks first."""
        while self._transport is None and self._error is None:
            await self._wakeup

    @property
    def write_paused(self) -> bool:
        """Whether the peer is slow, so that `drain` would wait."""
        return self._paused_writing

    def received(self) -> object | None:
        """The next unit, if one has come, and no others are to have their turn; else see `receive`.

        Raises nothing.
        """
        if not self._units or self._turn >= _TURN:
            return None
        self._turn += 1
        unit = self._units.popleft()
        if type(unit) is Leaving:
            self._leaving = True
            return self.received()
        return unit

    async def receive(self) -> object:
        """The next message, Chunk or Trigger. Raises ConnectionLost, WireError.

        Gives way to others when much has been received since it last did. A service then waits for
        a client that does not take its answers.
        """
        while True:
            if self._turn >= _TURN:
                await self._give_way()
            if not self._units:
                self._unread = 0
                error = self._error or self._unframer.error
                if error is not None:
                    self._error = error
                    self.close()
                    raise error
                if self._paused_reading:
                    self._resume_reading()
                await self._wakeup
            unit = self.received()
            if unit is not None:
                return unit

    async def _give_way(self) -> None:
        self._turn = 0
        self._pause_reading()
        await asyncio.sleep(0)
        if self._serving and self._paused_writing:
            await self.drain()

    async def receive_as(self, kind: type[M]) -> M:
        """The next message, which must be of this type. Raises ConnectionLost, WireError."""
        message = self.received()
        if message is None:
            message = await self.receive()
        if isinstance(message, kind):
            return message
        self.close()
        got = type(message).__name__
        raise WireError(f"{self.path}: got {got}, expected {kind.__name__}")

    def leave(self) -> None:
        """Of a service: ask the client to use another connection for its next exchange."""
        self._leaving = True
        if self._transport is not None:
            self.send(Leaving())

    def expire_unbegun(self) -> None:
        """Close at once if the peer has said nothing yet."""
        if not self.begun:
            self.expire()

    def expire(self) -> None:
        """Close at once; pending calls of `receive` raise AnswerLate."""
        if self._error is None:
            self._error = AnswerLate(self.path)
        self.abort()
        self._wakeup.wake()
        self.resume_writing()

    def send(self, message: object) -> None:
        """Send a message. Raises ConnectionLost, WireError."""
        self._require_transport().write(CODEC.encode(message))

    def write(self, data: bytes) -> None:
        """Send bytes that are encoded already. Raises ConnectionLost."""
        self._require_transport().write(data)

    def write_parts(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send bytes that are encoded already. Raises ConnectionLost."""
        if sum(map(len, parts)) < _GATHER_AT:
            self._require_transport().write(b"".join(parts))
        else:
            self._require_transport().writelines(parts)

    def send_with(self, message: object, descriptors: Sequence[int]) -> None:
        """Send a message with copies of open files. Raises ConnectionLost, WireError."""
        self.write_with(CODEC.encode(message), descriptors)

    def write_with(self, data: bytes, descriptors: Sequence[int]) -> None:
        """The same of what is encoded already. Raises ConnectionLost, WireError."""
        stream: object = self._require_transport()
        if not isinstance(stream, UnixStream):
            raise WireError("this connection carries no descriptors")
        stream.write_with(data, descriptors)

    def take_descriptors(self, number: int) -> list[int]:
        """Open files that a message announced; they are the caller's. Raises WireError."""
        stream: object = self._transport
        if not isinstance(stream, UnixStream):
            raise WireError("this connection carries no descriptors")
        try:
            return stream.take_descriptors(number)
        except StrayDescriptors as error:
            raise WireError(str(error)) from None

    async def drain(self) -> None:
        """Wait until the write buffer is short. Raises ConnectionLost."""
        while self._paused_writing:
            self._drain_waiter = asyncio.get_running_loop().create_future()
            await self._drain_waiter
        self._require_transport()

    def close(self) -> None:
        """Close after all output was sent, or was not read for LINGER seconds."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            if transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
