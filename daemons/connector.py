"""connector(8): open what mail_owner may open for services that face the network.

called by: smtpd, smtp, lmtp and the like, where something is closed to mail_network_user. asks: the
socket. writes: nothing. tells: nobody. needs: mail_owner; master.cf need not have it.

Dovecot and Milters often have sockets that mail_owner alone may connect to (mode 0600): the
connection is made here, and handed over. Sockets of our own services are open to everybody who
gets to them, and ask the kernel who that is: they are refused, lest a service that faces the
network pass for mail_owner.
"""

import asyncio
import errno
import os
import socket
import stat
from typing import Final

from libmail.ipc.codec import WireError
from libmail.ipc.messages import ConnectReply, ConnectRequest, ScratchRequest
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "connect"]

_SCRATCH: Final = os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC  # never gets a name
_PATIENCE: Final = 10.0  # seconds for which a socket may be too busy to take one more client
_PAUSE: Final = 0.1  # seconds between tries


async def connect(path: str) -> socket.socket:
    """A connection to a socket that is not open to everybody. path: below the queue directory.

    Raises OSError.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if found.st_mode & stat.S_IWOTH:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        # What was looked at, whatever its name leads to meanwhile.
        return await _connected(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


async def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    sock.connect(path)
                except BlockingIOError:  # its queue of clients is full
                    await asyncio.sleep(_PAUSE)
                else:
                    return sock
    except BaseException:
        sock.close()
        raise


async def _serve(connection: Connection) -> None:
    while True:
        request = await connection.receive()
        try:
            if isinstance(request, ConnectRequest):
                fd = (await connect(request.path)).detach()
            elif isinstance(request, ScratchRequest):
                fd = os.open("incoming", _SCRATCH, 0o600)
            else:
                raise WireError(f"unexpected {type(request).__name__}")
        except OSError as err:  # TimeoutError, too, which has no number
            connection.send(ConnectReply(err.errno or errno.ETIMEDOUT))
            continue
        try:
            connection.send_with(ConnectReply(0), (fd,))
        finally:
            os.close(fd)


def _prepare(_: Startup) -> None:
    pass


async def _start(_: None, runtime: Runtime) -> Handlers:
    return Handlers(stream=exchanges(runtime, _serve, network=True))


SERVICE: Final = Service("connector", _prepare, _start)
