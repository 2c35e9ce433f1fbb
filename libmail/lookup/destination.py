"""Which domains are this machine itself: mydestination, and literals of its own addresses.

Called by: trivial-rewrite (address class local), cleanup and others (table lookups of a user name
alone, see `AddressForms.LOCAL_IF_LOCAL`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from libmail.log import Fatal
from libmail.tables.match import StringList

__all__ = ["LocalDomains", "literal_address", "proxy_addresses"]


def literal_address(domain: str) -> IPv4Address | IPv6Address | None:
    """The address in a domain literal, RFC 5321 §4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]"."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    text = domain[1:-1]
    six = text[:5].lower() == "ipv6:"
    try:
        address = ip_address(text[5:] if six else text)
    except ValueError:
        return None
    return address if (address.version == 6) == six and "%" not in text else None


def proxy_addresses(proxy_interfaces: Iterable[str]) -> list[IPv4Address | IPv6Address]:
    """The addresses in the parameter proxy_interfaces. Raises Fatal for what is none."""
    try:
        return [ip_address(text.strip("[]")) for text in proxy_interfaces]
    except ValueError as err:
        raise Fatal(f"config variable proxy_interfaces: {err}") from err


class LocalDomains:
    """mydestination, inet_interfaces and proxy_interfaces together."""

    def __init__(
        self, mydestination: StringList, addresses: Iterable[IPv4Address | IPv6Address]
    ) -> None:
        self._names = mydestination
        self._addresses = frozenset(addresses)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._names or self._addresses)

    async def match(self, domain: str) -> bool:
        """Whether mail for the domain is for this machine. Raises TableRetry."""
        if await self._names.match(domain):
            return True
        address = literal_address(domain)
        return address is not None and address in self._addresses
