"""Services of type `pass`: clients that another program has accepted, and hands over, open.

Called by: the skeleton. The other program connects to the socket of the service, sends
`PassedClient` with the client's descriptor beside it (SCM_RIGHTS), and closes. Only the mail system
may.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final, NamedTuple

from libmail.ipc.codec import WireError
from libmail.ipc.messages import PassedClient, TlsSession
from libmail.log import LOG
from libmail.net.ends import Ends
from libmail.net.unix_stream import StrayDescriptors, UnixStream
from libmail.service.connection import Connection, ConnectionLost, peer_credentials

__all__ = ["Passed", "receive_client", "stream_socket"]

_PORT: Final = re.compile(r"[0-9]{1,5}")
_PATIENCE: Final = 10.0  # seconds from the connection to the message


class Passed(NamedTuple):
    """A client. sock: does not block. ends, said, tls: see PassedClient."""

    sock: socket.SocketType
    ends: Ends
    said: tuple[str, ...] = ()
    tls: tuple[TlsSession, ...] = ()


async def receive_client(
    carrier: socket.SocketType, trusted: Collection[int], name: str
) -> Passed | None:
    """The client that comes over this connection, which is closed; None, with a warning, if none.

    trusted: user ids that may send one. name: of the service, for the log.
    """
    if peer_credentials(carrier).uid not in trusted:
        carrier.close()
        LOG.warning(f"{name}: connection from a user outside of the mail system")
        return None
    carrier.setblocking(False)
    connection = Connection(name)
    stream = UnixStream(carrier, connection, descriptors=True)
    try:
        async with asyncio.timeout(_PATIENCE):
            message = await connection.receive_as(PassedClient)
        ends = _ends(message)
        (fd,) = stream.take_descriptors(1)
        return Passed(stream_socket(fd), ends, message.said, message.tls)
    except (ConnectionLost, WireError, StrayDescriptors, TimeoutError, OSError) as err:
        LOG.warning(f"{name}: no client was handed over: {err or type(err).__name__}")
        return None
    finally:
        connection.close()


def _ends(message: PassedClient) -> Ends:
    """Raises WireError."""
    ends = Ends(*message[:4])
    try:
        for address in (ends.client_address, ends.server_address):
            ip_address(address)
    except ValueError:
        raise WireError("no address") from None
    if not all(_PORT.fullmatch(port) for port in (ends.client_port, ends.server_port)):
        raise WireError("no port")
    return ends


def stream_socket(fd: int) -> socket.socket:
    """The connection that has come as a descriptor, which is owned from now on; it does not block.

    Raises OSError for what is none.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise OSError(0, "not a stream socket")
    sock.setblocking(False)
    return sock
