"""The PROXY protocol, versions 1 and 2: who is behind a load balancer.

The header comes first on a connection, before anybody speaks. Version 1 is a line of text, version
2 binary. A connection of the balancer itself (health check: "LOCAL", "UNKNOWN") is not proxied.

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


def parse_proxy_header(data: bytes) -> tuple[Proxied | None, int] | None:
    """What the header at the beginning of `data` says, and its length in octets.

    Proxied is None for a connection that is the balancer's own. The whole is None while the header
    is not complete. Raises ProxyError as soon as it is clear that there is none.
    """
    if data[:1] == b"P":
        return _version_1(data)
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]) or data.startswith(_SIGNATURE):
        return _version_2(data)
    raise ProxyError("no protocol header")


def _version_1(data: bytes) -> tuple[Proxied | None, int] | None:
    if not b"PROXY ".startswith(data[:6]) and not data.startswith(b"PROXY "):
        raise ProxyError("no protocol header")
    end = data.find(b"\n", 0, _MAX_LINE)
    if end < 0:
        if len(data) >= _MAX_LINE:
            raise ProxyError("header line too long")
        return None
    fields = data[6:end].rstrip(b"\r").decode("ascii", "replace").split(" ")
    if fields[0] == "UNKNOWN":
        return None, end + 1
    if fields[0] not in ("TCP4", "TCP6") or len(fields) != 5:
        raise ProxyError("malformed header line")
    version = 4 if fields[0] == "TCP4" else 6
    client, server = (_address(text, version) for text in fields[1:3])
    client_port, server_port = (_port(text) for text in fields[3:5])
    return Proxied(client, client_port, server, server_port), end + 1


def _version_2(data: bytes) -> tuple[Proxied | None, int] | None:
    if len(data) < _FIXED.size:
        return None
    _, command, family, length = _FIXED.unpack_from(data)
    end = _FIXED.size + length
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"unsupported version or command 0x{command:02x}")
    if end > MAX_HEADER:
        raise ProxyError("header too long")
    if len(data) < end:
        return None
    if command == _LOCAL:
        return None, end
    layout = {_TCP4: _V4, _TCP6: _V6}.get(family)
    if layout is None:
        raise ProxyError(f"unsupported network protocol 0x{family:02x}")
    if length < layout.size:
        raise ProxyError("header too short for its addresses")
    client, server, client_port, server_port = layout.unpack_from(data, _FIXED.size)
    proxied = Proxied(_plain(client), str(client_port), _plain(server), str(server_port))
    return proxied, end


def _plain(packed: bytes) -> str:
    """As text; an IPv4 address that is written as one of IPv6 becomes what it is."""
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "%" in text:
        raise ProxyError(f"malformed address: {text[:50]!a}")
    return _plain(address.packed)


def _port(text: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ProxyError(f"malformed port: {text[:50]!a}")
    return str(int(text))
