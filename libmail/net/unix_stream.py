"""A UNIX stream socket in the event loop, which carries open files beside bytes (SCM_RIGHTS).

asyncio's transports read without room for descriptors, so that the kernel drops them. This one is
for connections between our own programs; it costs as much as theirs (6.5 µs for a small message and
its answer). It speaks to the same kind of protocol, and has of asyncio.Transport what those use. A
service of type inet has it for TCP.

Descriptors arrive with the bytes they were sent with or earlier, never later: a message that
announces some finds them in `take_descriptors`. Only who may send them gets room for them.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from libmail.ipc.rendezvous import instead_of

__all__ = ["StrayDescriptors", "UnixStream", "connect_unix", "connected_unix"]

_READ: Final = 1 << 16
_HIGH: Final = 1 << 16  # octets not sent yet, from which the protocol is to pause
_LOW: Final = 1 << 14
_INT: Final = array.array("i").itemsize
_MOST_DESCRIPTORS: Final = 16  # with one message, and waiting to be taken
_KEEP_OUT: Final = socket.MSG_CMSG_CLOEXEC  # of programs that this one executes
_TRUNCATED: Final = int(socket.MSG_CTRUNC)  # a plain integer, which is cheap to test
_ANCILLARY: Final = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT)


class StrayDescriptors(Exception):
    """More descriptors came, or fewer, than were announced."""


class _Piece(NamedTuple):
    """Bytes to be sent, with descriptors (ours, to be closed) that go with the first of them."""

    data: memoryview
    descriptors: tuple[int, ...]


class UnixStream:
    """One connection. It belongs to the running loop; closing it is up to its protocol."""

    def __init__(
        self, sock: socket.SocketType, protocol: asyncio.Protocol, *, descriptors: bool = False
    ) -> None:
        """sock: connected, does not block; owned from now on. descriptors: the peer may send some.

        Calls `connection_made` of the protocol before it returns.
        """
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._accepts = descriptors
        self._received: deque[int] = deque()
        self._out: deque[_Piece] = deque()
        self._size = 0  # octets in _out
        self._reading = True
        self._paused = False
        self._closing = False
        self._lost = False
        self._loop.add_reader(self._fd, self._read)
        protocol.connection_made(self)  # type: ignore[arg-type]

    def get_extra_info(self, name: str, default: object = None) -> object:
        """The socket, for "socket"."""
        return self._sock if name == "socket" else default

    # receiving

    def _read(self) -> None:
        try:
            if self._accepts:
                data, ancillary, flags, _ = self._sock.recvmsg(_READ, _ANCILLARY, _KEEP_OUT)
                if ancillary and not self._keep(ancillary, flags):
                    self._end(ConnectionAbortedError(0, "too many descriptors"))
                    return
            else:
                data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(None)

    def _keep(self, ancillary: Iterable[tuple[int, int, bytes]], flags: int) -> bool:
        """Whether there was room for all."""
        received = self._received
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.extend(memoryview(data).cast("i"))  # the kernel cuts off whole ones only
        return not flags & _TRUNCATED and len(received) <= _MOST_DESCRIPTORS

    def take_descriptors(self, number: int) -> list[int]:
        """The next descriptors that have come; they are the caller's. Raises StrayDescriptors."""
        if number > len(self._received):
            raise StrayDescriptors(f"{number} descriptors announced, {len(self._received)} came")
        return [self._received.popleft() for _ in range(number)]

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        if self._reading and not self._lost:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Read again."""
        if not (self._reading or self._closing or self._lost):
            self._reading = True
            self._loop.add_reader(self._fd, self._read)

    # sending

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes, or keep them until that is possible."""
        if self._lost:
            return
        sent = 0
        if not self._out:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._end_soon(error)
                return
            if sent == len(data):
                return
        self._wait(_Piece(memoryview(data)[sent:], ()))

    def writelines(self, parts: Iterable[bytes | memoryview]) -> None:
        """Send bytes that are in several pieces."""
        todo = list(parts)
        if self._out or self._lost:
            for part in todo:
                self.write(part)
            return
        try:
            sent = self._sock.sendmsg(todo)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._end_soon(error)
            return
        for part in todo:
            if sent >= len(part):
                sent -= len(part)
            else:
                self._wait(_Piece(memoryview(part)[sent:], ()))
                sent = 0

    def write_with(self, data: bytes, descriptors: Iterable[int]) -> None:
        """Send bytes with copies of open files; the caller keeps its own."""
        if self._lost:
            return
        sent, open_files = 0, tuple(descriptors)
        if not self._out:
            try:
                sent = self._send(data, open_files)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._end_soon(error)
                return
            if sent == len(data):
                return
        copies = () if sent else tuple(_duplicate(fd) for fd in open_files)
        self._wait(_Piece(memoryview(data)[sent:], copies))

    def _wait(self, piece: _Piece) -> None:
        if not self._out:
            self._loop.add_writer(self._fd, self._flush)
        self._out.append(piece)
        self._size += len(piece.data)
        if self._size > _HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        while self._out:
            data, descriptors = self._out[0]
            try:
                sent = self._send(data, descriptors)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._end_soon(error)
                return
            _close_all(descriptors)
            self._size -= sent
            if sent < len(data):
                self._out[0] = _Piece(data[sent:], ())
            else:
                self._out.popleft()
        self._loop.remove_writer(self._fd)
        if self._closing:
            self._end(None)
        elif self._paused and self._size <= _LOW:
            self._paused = False
            self._protocol.resume_writing()

    def _send(self, data: bytes | memoryview, descriptors: tuple[int, ...]) -> int:
        if not descriptors:
            return self._sock.send(data)
        rights = array.array("i", descriptors)
        return self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    # the end

    def is_closing(self) -> bool:
        """Whether the connection is over, or will be when what was written is sent."""
        return self._closing or self._lost

    def get_write_buffer_size(self) -> int:
        """Octets that the peer has not taken yet."""
        return self._size

    def close(self) -> None:
        """Close when everything is sent."""
        if self._closing or self._lost:
            return
        self.pause_reading()
        self._closing = True
        if not self._out:
            self._end_soon(None)

    def abort(self) -> None:
        """Close at once."""
        self._end_soon(None)

    def _end_soon(self, error: Exception | None) -> None:
        """The protocol hears of the end from the loop, never from within its own call."""
        if not self._lost:
            self._release()
            self._loop.call_soon(self._protocol.connection_lost, error)

    def _end(self, error: Exception | None) -> None:
        if not self._lost:
            self._release()
            self._protocol.connection_lost(error)

    def _release(self) -> None:
        self._lost = True
        if self._reading:
            self._loop.remove_reader(self._fd)
        if self._out:
            self._loop.remove_writer(self._fd)
        self._sock.close()
        _close_all(self._received)
        for piece in self._out:
            _close_all(piece.descriptors)
        self._received.clear()
        self._out.clear()


def _duplicate(fd: int) -> int:
    return os.dup(fd)


def _close_all(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def connect_unix(path: str, protocol: asyncio.Protocol, *, descriptors: bool = False) -> UnixStream:
    """Connect to a service. Raises OSError; BlockingIOError means that its queue is full."""
    try:
        sock = connected_unix(path)
    except ConnectionRefusedError:
        sock = connected_unix(instead_of(path) or path)
    return UnixStream(sock, protocol, descriptors=descriptors)


def connected_unix(path: str) -> socket.socket:
    """A connected socket, which does not block. Raises OSError, see `connect_unix`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
