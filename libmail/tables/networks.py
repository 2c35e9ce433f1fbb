"""Addresses and networks as numbers, for cidr tables and match lists.

An address is a pair (version, number): comparing it with a network is one mask operation.
"""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass

__all__ = ["Address", "Network", "NetworkError", "parse_address", "parse_network"]

Address = tuple[int, int]  # (4 or 6, the address as a number)


class NetworkError(ValueError):
    """Text is no network.  `str()` says why, in the words of the log."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network: the addresses of one version whose masked number is `base`."""

    version: int
    base: int
    mask: int

    def holds(self, address: Address) -> bool:
        """Tell whether the address belongs to the network."""
        return address[1] & self.mask == self.base and address[0] == self.version


@functools.lru_cache(maxsize=1000)
def parse_address(text: str) -> Address | None:
    """Return the address, or None for other text.  IPv4 needs all four decimal octets."""
    try:
        if ":" in text:
            return 6, int.from_bytes(socket.inet_pton(socket.AF_INET6, text))
        return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        return None


def _show(version: int, number: int) -> str:
    if version == 4:
        return socket.inet_ntop(socket.AF_INET, number.to_bytes(4))
    return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16))


def _unbracketed(text: str) -> str:
    """Turn "[::1]/128" and "[::1/128]" into "::1/128"."""
    inner, bracket, rest = text[1:].partition("]")
    if not bracket:
        raise NetworkError(f"missing ']' character after \"{text}\"")
    return inner + rest


def parse_network(text: str) -> Network:
    """Parse "address/prefix" or "address"; raises `NetworkError`.

    Bits behind the prefix must be zero: 10.0.0.1/8 is more likely a mistake than a network.
    """
    if text.startswith("["):
        text = _unbracketed(text)
    host, slash, prefix = text.partition("/")
    if slash and not (prefix.isascii() and prefix.isdigit()):
        raise NetworkError(f'bad mask value in "{text}"')
    address = parse_address(host)
    if address is None:
        problem = "bad network value in" if slash else "bad address pattern:"
        raise NetworkError(f'{problem} "{text}"')
    version, number = address
    bits = 32 if version == 4 else 128
    length = int(prefix) if slash else bits
    if length > bits:
        raise NetworkError(f'bad mask length in "{text}"')
    mask = ((1 << length) - 1) << (bits - length)
    if number & ~mask:
        right = f"{_show(version, number & mask)}/{length}"
        raise NetworkError(
            f'non-null host address bits in "{text}", perhaps you should use "{right}" instead'
        )
    return Network(version, number, mask)
