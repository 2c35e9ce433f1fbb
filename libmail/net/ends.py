"""The addresses of both ends of a connection, as a value.

They need not be those of the socket: a proxy or postscreen may have told others, which count then.
"""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

__all__ = ["Ends", "address_literal", "ends_of", "plain_address"]


class Ends(NamedTuple):
    """Addresses and ports of client and server, "" where there is none."""

    client_address: str = ""
    client_port: str = ""
    server_address: str = ""
    server_port: str = ""


_LOCAL: Final = Ends("127.0.0.1", "0", "127.0.0.1", "0")


def plain_address(address: str) -> str:
    """An address without zone; an IPv4-mapped IPv6 address as the IPv4 address."""
    address = address.partition("%")[0]
    if address.lower().startswith("::ffff:") and "." in address:
        return address[7:]
    return address


def address_literal(address: str) -> str:
    """An address as it stands in an address literal, without brackets."""
    return f"IPv6:{address}" if ":" in address else address


def ends_of(sock: socket.SocketType) -> Ends:
    """The ends of a connection, empty where the client is gone already.

    Those of a UNIX socket, as of a service of type unix, are both this host.
    """
    if sock.family == socket.AF_UNIX:
        return _LOCAL
    try:
        client, server = sock.getpeername(), sock.getsockname()
    except OSError:
        return Ends()
    return Ends(plain_address(client[0]), str(client[1]), plain_address(server[0]), str(server[1]))
