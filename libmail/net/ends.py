"""The addresses of both ends of a connection, as a value.

They need not be those of the socket: a proxy or postscreen may have told others, which count then.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, NamedTuple

__all__ = ["Ends", "address_literal", "ends_of", "plain_address"]

_THIS_HOST: Final = ("127.0.0.1", "0")


class Ends(NamedTuple):
    """Addresses and ports of client and server, "" where there is none."""

    client_address: str = ""
    client_port: str = ""
    server_address: str = ""
    server_port: str = ""


def plain_address(address: str) -> str:
    """An address without zone; an IPv4-mapped IPv6 address as the IPv4 address."""
    address = address.partition("%")[0]
    if address.lower().startswith("::ffff:") and "." in address:
        return address[7:]
    return address


def address_literal(address: str) -> str:
    """An address as it stands in an address literal, without brackets."""
    return f"IPv6:{address}" if ":" in address else address


def ends_of(transport: asyncio.BaseTransport) -> Ends:
    """The ends of a socket; those of a UNIX socket are both this host."""
    return Ends(*_end(transport, "peername"), *_end(transport, "sockname"))


def _end(transport: asyncio.BaseTransport, which: str) -> tuple[str, str]:
    name = transport.get_extra_info(which)
    if isinstance(name, tuple) and len(name) >= 2:
        return plain_address(str(name[0])), str(name[1])
    sock = transport.get_extra_info("socket")
    # A service of type unix has clients of this host; another one is gone already.
    return _THIS_HOST if sock is not None and sock.family == socket.AF_UNIX else ("", "")
