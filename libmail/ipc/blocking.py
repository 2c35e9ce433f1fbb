"""A connection to a service for command-line programs: blocking, without an event loop.

Made of what starts fast: see `libmail.ipc.frames`. The module `_socket`, on which `socket` is
built, has all that a client needs here and loads in a tenth of the time.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from libmail.ipc.frames import (
    CHUNK_END,
    MAX_FRAME,
    WireError,
    encode_chunk,
    frame,
    frame_attributes,
)
from libmail.ipc.rendezvous import instead_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from libmail.ipc.frames import Value

__all__ = ["BlockingConnection", "ServiceDown"]


class ServiceDown(Exception):
    """The service cannot be reached; the text says why, as strerror(3).

    missing: there is no socket, as before the first start; else nobody listens.
    """

    def __init__(self, text: str, *, missing: bool) -> None:
        super().__init__(text)
        self.missing = missing


def _connected(path: str, timeout: float) -> socket:
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    client.settimeout(timeout)
    try:
        client.connect(path)
    except BaseException:
        client.close()
        raise
    return client


class BlockingConnection:
    """One connection to the UNIX socket at `path`. Raises OSError as it comes, WireError."""

    def __init__(self, path: str, timeout: float) -> None:
        """Connect; timeout: seconds for each step. Raises ServiceDown."""
        self._path = path
        try:
            try:
                self._socket = _connected(path, timeout)
            except ConnectionRefusedError:
                self._socket = _connected(instead_of(path) or path, timeout)
        except OSError as err:
            missing = isinstance(err, FileNotFoundError)
            raise ServiceDown(err.strerror or str(err), missing=missing) from err

    def patience(self, timeout: float) -> None:
        """Other seconds for each step from now on."""
        self._socket.settimeout(timeout)

    def send(self, name: str, **attributes: Value) -> None:
        """Send a message, as `frames.frame` encodes it."""
        self._socket.sendall(frame(name, **attributes))

    def send_bytes(self, data: bytes) -> None:
        """Send what is encoded already."""
        self._socket.sendall(data)

    def send_content(self, pieces: Iterable[bytes]) -> None:
        """Send message content and its end."""
        for piece in pieces:
            self._socket.sendall(encode_chunk(piece))
        self._socket.sendall(CHUNK_END)

    def receive_bytes(self) -> bytes:
        """Some bytes as they are; b"" at the end."""
        return self._socket.recv(65536)

    def receive(self, name: str) -> dict[str, str]:
        """The attributes of the next message, which must be of this type. Raises WireError."""
        try:
            return frame_attributes(self.receive_frame(), name)
        except WireError as err:
            raise WireError(f"{self._path}: {err}") from None

    def receive_frame(self) -> bytes:
        """The next message, without its length word. Raises WireError."""
        size = int.from_bytes(self._exactly(4), "big")
        if size > MAX_FRAME:
            raise WireError(f"a unit of {size} octets")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise WireError("lost connection")
            data += more
        return data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
