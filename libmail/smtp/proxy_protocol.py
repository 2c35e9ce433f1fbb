"""The PROXY protocol, versions 1 and 2: who is behind a load balancer.

The header comes first on a connection, before anybody speaks. Version 1 is a line of text, version
2 binary. A connection of the balancer itself (health check, "LOCAL") is not proxied; the "UNKNOWN"
of version 1 is not taken, as in Postfix.

Source: HAProxy's public "The PROXY protocol, versions 1 & 2".
"""

import ipaddress
import struct
from typing import Final, NamedTuple

__all__ = ["MAX_HEADER", "Proxied", "ProxyError", "parse_proxy_header"]

MAX_HEADER: Final = 16 + 2048
"""Octets; addresses need 52 of them at the most, the rest are extensions, which are not read."""

_MAX_LINE: Final = 107
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = struct.Struct(">12sBBH")
_V4: Final = struct.Struct(">4s4sHH")
_V6: Final = struct.Struct(">16s16sHH")
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21


class ProxyError(Exception):
    """What came is no header of this protocol. The text is printable."""


class Proxied(NamedTuple):
    """The ends of the connection that was taken for us. Addresses without brackets."""

    client_address: str
    client_port: str
    server_address: str
    server_port: str


def parse_proxy_header(data: bytes, *, ipv6: bool = True) -> tuple[Proxied | None, int] | None:
    """What the header at the beginning of `data` says, and its length in octets.

    ipv6: clients can have such addresses. Proxied is None for a connection that is the balancer's
    own. The whole is None while the header is not complete. Raises ProxyError when it is clear that
    there is none; a line is shown whole, so that is no sooner than at its end.
    """
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]) or data.startswith(_SIGNATURE):
        return _version_2(data, ipv6=ipv6)
    end = data.find(b"\n", 0, _MAX_LINE)
    if end < 0 and len(data) < _MAX_LINE:
        return None
    if end < 0 or not data.startswith(b"PROXY "):
        raise ProxyError("unrecognized protocol header")
    return _version_1(data[:end].rstrip(b"\r").decode("ascii", "replace"), ipv6=ipv6), end + 1


def _version_1(line: str, *, ipv6: bool) -> Proxied:
    """PROXY TCP4|TCP6 client server client-port server-port"""
    fields = [*line.split(), "", "", "", "", ""][1:6]
    family = {"TCP4": 4, "TCP6": 6}.get(fields[0])
    if family is None:
        raise ProxyError("bad or missing protocol type")
    if family == 6 and not ipv6:
        raise ProxyError("bad or missing client address")
    client = _address(fields[1], family, "client")
    server = _address(fields[2], family, "server")
    return Proxied(client, _port(fields[3], "client"), server, _port(fields[4], "server"))


def _version_2(data: bytes, *, ipv6: bool) -> tuple[Proxied | None, int] | None:
    if len(data) < _FIXED.size:
        return None
    _, command, family, length = _FIXED.unpack_from(data)
    end = _FIXED.size + length
    if command not in (_LOCAL, _PROXY):
        raise ProxyError("bad or missing protocol version or command")
    if end > MAX_HEADER:
        raise ProxyError("protocol header too long")
    if len(data) < end:
        return None
    if command == _LOCAL:
        return None, end
    layout = {_TCP4: _V4, _TCP6: _V6 if ipv6 else None}.get(family)
    if layout is None:
        raise ProxyError("bad or missing protocol type")
    if length < layout.size:
        raise ProxyError("short address in protocol header")
    client, server, client_port, server_port = layout.unpack_from(data, _FIXED.size)
    proxied = Proxied(_plain(client), str(client_port), _plain(server), str(server_port))
    return proxied, end


def _plain(packed: bytes) -> str:
    """As text; an IPv4 address that is written as one of IPv6 becomes what it is."""
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _address(text: str, version: int, whose: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "%" in text:
        raise ProxyError(f"bad or missing {whose} address")
    return _plain(address.packed)


def _port(text: str, whose: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ProxyError(f"bad or missing {whose} port")
    return str(int(text))
