"""The socket of a client. Input can be left in the kernel, for the SMTP server to read.

The socket is watched only while the session waits, as a descriptor that is handed over must not be
known to the poller any more.
"""

import socket
from typing import Final

from libmail.net.ends import Ends, plain_address
from libmail.net.poller import READ, Poller
from libmail.net.wakeup import Wakeup

__all__ = ["ClientSocket", "Gone", "Stopping", "ends_of_socket"]

_READ: Final = 4096


class Gone(Exception):
    """The client has closed the connection, or does not read our replies."""


class Stopping(Exception):
    """The mail system is being stopped."""


def ends_of_socket(sock: socket.SocketType) -> Ends | None:
    """Both ends of a connection; None where the client is gone already."""
    try:
        client, server = sock.getpeername(), sock.getsockname()
    except OSError:
        return None
    if not (isinstance(client, tuple) and isinstance(server, tuple)):
        return None
    return Ends(
        plain_address(str(client[0])), str(client[1]), plain_address(str(server[0])), str(server[1])
    )


class ClientSocket:
    """The socket of a session; owned, and made non-blocking."""

    __slots__ = ("_events", "_poller", "_stopping", "_wakeup", "deadline", "sock")

    def __init__(self, sock: socket.SocketType, poller: Poller) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.deadline = 0.0
        self._poller = poller
        self._wakeup = Wakeup(poller.loop)
        self._events = 0
        self._stopping = False

    # for the poller

    def ready(self, events: int) -> None:
        """The socket has events."""
        self._events = events
        self._wakeup.wake()

    def expire(self) -> None:
        """The deadline has passed."""
        self._wakeup.wake()

    # for others

    def interrupt(self) -> None:
        """End the current wait of the session."""
        self._poller.loop.call_soon(self._wakeup.wake)

    def stop(self) -> None:
        """The mail system is being stopped."""
        self._stopping = True
        self.interrupt()

    # for the session

    async def wait(self, seconds: float, *, reading: bool) -> bool:
        """Wait that long, until `interrupt`, or (reading) until the client sends something.

        True: it did, or it is gone. Raises Stopping.
        """
        if self._stopping:
            raise Stopping
        fd, self._events = self.sock.fileno(), 0
        self._poller.watch(fd, READ if reading else 0, self)
        self._poller.limit(self, max(seconds, 0.001))
        try:
            await self._wakeup
        finally:
            self._poller.unwatch(fd)
            self.deadline = 0.0
        if self._stopping:
            raise Stopping
        return bool(self._events if reading else self._events & ~READ)

    def peek(self) -> bytes:
        """Input of the client, which stays in the kernel; b"" for none yet. Raises Gone."""
        return self._receive(_READ, socket.MSG_PEEK)

    def read(self, size: int = _READ) -> bytes:
        """Input of the client; b"" for none yet. Raises Gone."""
        return self._receive(size, 0)

    def _receive(self, size: int, flags: int) -> bytes:
        try:
            data = self.sock.recv(size, flags)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            raise Gone from None
        if not data:
            raise Gone
        return data

    def send(self, data: bytes) -> None:
        """Send a reply. Raises Gone, also if the socket does not take that little at once."""
        try:
            sent = self.sock.send(data)
        except OSError:
            raise Gone from None
        if sent < len(data):
            raise Gone

    def replace(self, sock: socket.SocketType) -> None:
        """Use another socket from now on: tlsproxy(8) has the client's own."""
        self.sock.close()
        sock.setblocking(False)
        self.sock = sock

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()
