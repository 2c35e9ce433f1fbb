"""What is closed to this process, but not to mail_owner: connector(8) opens it.

UNIX sockets, and files without a name.
"""

import asyncio
import os
import socket
import tempfile
from typing import IO, Final, cast

from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import CODEC, ConnectReply, ConnectRequest, ScratchRequest
from libmail.net.unix_stream import StrayDescriptors, UnixStream, connect_unix, connected_unix

__all__ = ["introduced", "scratch_file", "unix_socket"]

_CONNECTOR: Final = "private/connector"
_PATIENCE: Final = 20.0  # seconds


class _Asking(asyncio.Protocol):
    """One question. answer: the error number and, with 0, the descriptor."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[tuple[int, int]] = loop.create_future()
        self._unframer = Unframer(CODEC)
        self._stream: UnixStream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast(UnixStream, transport)

    def data_received(self, data: bytes) -> None:
        self._unframer.receive_data(data)
        try:
            reply = self._unframer.next_event()
            if isinstance(reply, ConnectReply) and self._stream is not None:
                (fd,) = (-1,) if reply.error else self._stream.take_descriptors(1)
                self.answer.set_result((reply.error, fd))
        except (WireError, StrayDescriptors) as error:
            self.answer.set_exception(OSError(0, f"connector: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError(0, "connector: lost connection"))


async def unix_socket(path: str) -> socket.socket:
    """A connection to the socket at path, which does not block, if need be with help.

    Raises OSError; BlockingIOError means that the queue of its clients is full.
    """
    try:
        return connected_unix(path)
    except PermissionError as error:
        return await introduced(path, error)


async def introduced(path: str, problem: OSError) -> socket.socket:
    """A connection to the socket at path, which does not block. Raises OSError.

    problem: why there is none without help; where nobody helps, it is raised.
    """
    sock = socket.socket(fileno=await _opened(ConnectRequest(_outside(path)), problem))
    sock.setblocking(False)
    return sock


async def scratch_file(folder: str) -> IO[bytes]:
    """A file without a name, for reading and writing, if need be with help. Raises OSError.

    folder: in whose file system, where this process may make it.
    """
    try:
        return tempfile.TemporaryFile(dir=folder)
    except PermissionError as error:
        return os.fdopen(await _opened(ScratchRequest(), error), "w+b")


async def _opened(request: ConnectRequest | ScratchRequest, problem: OSError) -> int:
    """What connector(8) opens. Raises OSError, `problem` where nobody helps."""
    asking = _Asking()
    try:
        stream = connect_unix(_CONNECTOR, asking, descriptors=True)
    except OSError:
        raise problem from None
    try:
        stream.write(CODEC.encode(request))
        async with asyncio.timeout(_PATIENCE):
            error, fd = await asking.answer
    finally:
        stream.abort()
    if error:
        raise OSError(error, os.strerror(error))
    return fd


def _outside(path: str) -> str:
    """The path as connector(8) sees it. In a jail / is the queue directory, and we are there."""
    return path.lstrip("/") if os.getcwd() == "/" else path
