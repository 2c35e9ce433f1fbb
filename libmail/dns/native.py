"""The system's own name lookup: hosts file, DNS and whatever else nsswitch.conf names.

Called by smtp (smtp_host_lookup = native) and smtpd (the name of a client).  Needs: the modules
of nsswitch.conf, loaded at construction; behind the jail the C library reads the copies of its
files that are there.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
import socket
from importlib import import_module
from typing import Final

from libmail.dns.answers import DnsError, Invalid, NotFound, TempFail
from libmail.dns.hostname import valid_hostaddr
from libmail.dns.resolver import Protocols, allows
from libmail.net.cache import ExpiringCache

__all__ = ["NativeResolver", "ServerAddresses"]

_LATE_MODULES: Final = ("concurrent.futures.thread", "encodings.idna")
_FAMILIES: Final = {
    "all": socket.AF_UNSPEC,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
}
_NO_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NAME_ONLY: Final = socket.NI_NAMEREQD | socket.NI_NUMERICSERV  # or it reads /etc/services
_LOOPBACK: Final = ("127.0.0.1", "::1")
_OTHER_PROTOCOL: Final = frozenset({socket.EAI_ADDRFAMILY, socket.EAI_FAMILY})


def _load_name_services(nsswitch: str = "/etc/nsswitch.conf") -> None:
    """Load the C library's modules for hosts, which it would look for by path later."""
    try:
        with open(nsswitch, encoding="utf-8", errors="replace") as file:
            match = re.search(r"(?m)^[ \t]*hosts:(.*)", file.read())
    except OSError:
        match = None
    for service in re.findall(r"[a-z_0-9]+", match.group(1) if match else ""):
        try:
            ctypes.CDLL(f"libnss_{service}.so.2")
        except OSError:
            continue  # built into the C library, or a word such as NOTFOUND=return
    try:
        socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return  # what counts is that the C library has read its files


class NativeResolver:
    """getaddrinfo and getnameinfo in the loop's threads, with a small cache."""

    def __init__(self, *, cache_size: int = 5000, cache_life: float = 5.0) -> None:
        """cache_life: seconds that an answer, also a negative one, is used again."""
        for module in _LATE_MODULES:
            import_module(module)
        _load_name_services()
        self._addresses: ExpiringCache[tuple[str, Protocols], tuple[str, ...] | DnsError]
        self._addresses = ExpiringCache(cache_size, cache_life)
        self._names: ExpiringCache[str, str | DnsError] = ExpiringCache(cache_size, cache_life)

    async def addresses(self, host: str, protocols: Protocols = "all") -> tuple[str, ...]:
        """Return the addresses of a host, in the order of the system.

        Raises `NotFound`, `TempFail`, and `Invalid` for an address of another protocol.
        """
        if valid_hostaddr(host) and allows(protocols, host):
            return (host,)
        key = (host.lower(), protocols)
        known = self._addresses.get(key)
        if known is None:
            known = await self._find_addresses(host, protocols)
            self._addresses.put(key, known)
        if isinstance(known, DnsError):
            raise known.again()
        return known

    async def _find_addresses(self, host: str, protocols: Protocols) -> tuple[str, ...] | DnsError:
        loop = asyncio.get_running_loop()
        family = _FAMILIES[protocols]
        try:
            found = await loop.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            return _error(host, f"unable to look up host {host}", error)
        except UnicodeError:
            text = f"unable to look up host {host}: Name or service not known"
            return NotFound(host, "A", text, 3)
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def name(self, address: str) -> str:
        """Return the name of an address.  Raises `NotFound`, `TempFail`."""
        known = self._names.get(address)
        if known is None:
            known = await self._find_name(address)
            self._names.put(address, known)
        if isinstance(known, DnsError):
            raise known.again()
        return known

    async def _find_name(self, address: str) -> str | DnsError:
        loop = asyncio.get_running_loop()
        try:
            name, _ = await loop.getnameinfo((address, 0), _NAME_ONLY)
        except socket.gaierror as error:
            return _error(address, f"unable to look up the name of {address}", error)
        return name.removesuffix(".")


class ServerAddresses:
    """Finds the addresses of a server that the configuration names, to connect to.

    A process in a jail resolves names with the files that are there; "localhost" it knows without
    any (RFC 6761 §6.3).
    """

    def __init__(self) -> None:
        self._resolver = NativeResolver()

    async def __call__(self, host: str) -> tuple[str, ...]:
        """Raises OSError."""
        try:
            return await self._resolver.addresses(host)
        except DnsError as error:
            if host == "localhost":
                return _LOOPBACK
            raise OSError(0, error.text) from error


def _error(name: str, doing: str, error: socket.gaierror) -> DnsError:
    text = f"{doing}: {error.strerror}"
    if error.errno in _NO_NAME:
        return NotFound(name, "A", text, 3)
    if error.errno in _OTHER_PROTOCOL:
        return Invalid(name, "A", text)
    return TempFail(name, "A", text)
