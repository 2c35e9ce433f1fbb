"""Addresses of this machine's network interfaces, and the default of mynetworks made of them.

`getifaddrs(3)` through ctypes, because Python offers no masks. Source for the rules: postconf(5),
inet_interfaces, inet_protocols, mynetworks_style.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from libmail.config.errors import ConfigError

__all__ = [
    "Interface",
    "address_families",
    "allows_ipv6",
    "machine_interfaces",
    "mynetworks",
    "own_interfaces",
]

ADDRESS_AT: Final = {socket.AF_INET: (4, 4), socket.AF_INET6: (8, 16)}
LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of this machine. prefix_length: bits of its network, from the netmask."""

    address: IPv4Address | IPv6Address
    prefix_length: int


class _SocketAddress(ctypes.Structure):
    _fields_ = (("family", ctypes.c_ushort), ("data", ctypes.c_ubyte * 26))


class _InterfaceEntry(ctypes.Structure):
    pass


_InterfaceEntry._fields_ = (
    ("next", ctypes.POINTER(_InterfaceEntry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.POINTER(_SocketAddress)),
    ("netmask", ctypes.POINTER(_SocketAddress)),
)


def machine_interfaces() -> tuple[Interface, ...]:
    """All IPv4 addresses, then all IPv6 addresses, in the system's order, none twice.

    Raises ConfigError if the system does not tell.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.POINTER(_InterfaceEntry)()
    if libc.getifaddrs(ctypes.byref(head)) != 0:
        raise ConfigError("cannot list the addresses of network interfaces")
    found: dict[Interface, None] = {}
    try:
        entry = head
        while entry:
            interface = _interface(entry.contents)
            if interface is not None:
                found[interface] = None
            entry = entry.contents.next
    finally:
        libc.freeifaddrs(head)
    return tuple(sorted(found, key=lambda one: one.address.version))


def _interface(entry: _InterfaceEntry) -> Interface | None:
    up = 1
    if not entry.address or not entry.netmask or not entry.flags & up:
        return None
    family = entry.address.contents.family
    if family not in ADDRESS_AT:
        return None
    # The port comes first in both families; in IPv6 the flow label precedes the address.
    start, length = ADDRESS_AT[family]
    start -= 2
    octets = bytes(entry.address.contents.data[start : start + length])
    mask = bytes(entry.netmask.contents.data[start : start + length])
    return Interface(ip_address(octets), int.from_bytes(mask, "big").bit_count())


def address_families(inet_protocols: tuple[str, ...]) -> tuple[int, ...]:
    """Versions (4, 6) that inet_protocols names. Raises ConfigError for other words.

    With "all", a machine without IPv6 uses IPv4 alone.
    """
    text = ", ".join(inet_protocols)
    versions: set[int] = set()
    for word in inet_protocols:
        match word.lower():
            case "all":
                versions.update((4, 6) if _has_ipv6() else (4,))
            case "ipv4":
                versions.add(4)
            case "ipv6":
                versions.add(6)
            case _:
                raise ConfigError(f'unknown inet_protocols value "{word}" in "{text}"')
    if not versions:
        raise ConfigError(f"all network protocols are disabled (inet_protocols = {text})")
    return tuple(sorted(versions))


def allows_ipv6(inet_protocols: tuple[str, ...]) -> bool:
    """Whether clients can have IPv6 addresses; a proxy may have them where this machine has not."""
    return not {word.lower() for word in inet_protocols}.isdisjoint(("all", "ipv6"))


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def own_interfaces(
    inet_interfaces: tuple[str, ...], inet_protocols: tuple[str, ...]
) -> tuple[Interface, ...]:
    """The addresses that inet_interfaces stands for, of the protocols in use, in the
    machine's order, none twice.

    An address that no interface has comes with a full-length prefix. Raises ConfigError for a
    name that has no address.
    """
    versions = address_families(inet_protocols)
    machine = tuple(one for one in machine_interfaces() if one.address.version in versions)
    lengths = {one.address: one for one in machine}
    found: dict[Interface, None] = {}
    for word in inet_interfaces:
        if word.lower() == "all":
            found.update(dict.fromkeys(machine))
            continue
        loopback = word.lower() == "loopback-only"
        for address in LOOPBACK if loopback else _addresses(word):
            if address.version in versions and (not loopback or address in lengths):
                found[lengths.get(address, Interface(address, address.max_prefixlen))] = None
    order = {one: position for position, one in enumerate(machine)}
    return tuple(sorted(found, key=lambda one: order.get(one, len(order))))


def _addresses(word: str) -> list[IPv4Address | IPv6Address]:
    name = word.removeprefix("[").removesuffix("]")
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"config variable inet_interfaces: host not found: {word}") from error
    return [ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]


def mynetworks(
    style: str, inet_interfaces: tuple[str, ...], inet_protocols: tuple[str, ...]
) -> str:
    """The default of mynetworks: the networks of our addresses, as style says.

    Raises ConfigError for an unknown style.
    """
    if style not in ("class", "subnet", "host"):
        raise ConfigError(f'unknown mynetworks mask style value "{style}" in "{style}"')
    networks: dict[str, None] = {}
    for interface in own_interfaces(inet_interfaces, inet_protocols):
        network = ip_network((interface.address, _length(style, interface)), strict=False)
        text = str(network.network_address)
        shown = f"[{text}]" if network.version == 6 else text
        networks[f"{shown}/{network.prefixlen}"] = None
    return " ".join(networks)


def _length(style: str, interface: Interface) -> int:
    if style == "host":
        return interface.address.max_prefixlen
    if style == "subnet" or interface.address.version == 6:
        return interface.prefix_length
    first = interface.address.packed[0]
    return 8 if first < 128 else 16 if first < 192 else 24
