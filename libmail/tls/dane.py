"""TLSA records (RFC 6698, RFC 7671, RFC 7672): what they say, and which of them count.

Also what has the same effect: trust-anchor files (smtp_tls_trust_anchor_file, `tafile=`), whose
certificates and keys are given to the library as if they were records with usage 2.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

__all__ = ["DANE_EE", "DANE_TA", "FULL", "Tlsa", "parse_tlsa", "parse_tlsa_digests", "read_tlsa"]

DANE_TA: Final = 2  # usages: the record is of an authority,
DANE_EE: Final = 3  # or of the server itself
CERTIFICATE: Final = 0  # selectors
PUBLIC_KEY: Final = 1
FULL: Final = 0  # matching types: the whole object, or its digest
_SIZES: Final = {1: 32, 2: 64}  # octets of SHA-256, SHA-512
_NUMBERS: Final = {"sha256": 1, "sha512": 2}
_HASHES: Final = {number: name for name, number in _NUMBERS.items()}
_SHORTEST: Final = 4  # octets of a record: three numbers, and something
_PRIVATE: Final = 255  # matching type for private use
_MOST_DIGESTS: Final = 16


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One record. data: a digest, or with matching type 0 the certificate or key itself."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def is_key(self) -> bool:
        """Whether it is about nothing but the key of the server."""
        return (self.usage, self.selector) == (DANE_EE, PUBLIC_KEY)

    @property
    def for_mail(self) -> bool:
        """Whether its usage is one that counts for mail (RFC 7672 §3.1)."""
        return self.usage in (DANE_TA, DANE_EE)

    @property
    def unusable(self) -> str:
        """Why it does not count for mail (RFC 7672 §3.1); "": it does.

        That the library may not be able to use it either is found out when it is added.
        """
        if not self.for_mail:
            return "unsupported TLSA certificate usage"
        if self.selector not in (CERTIFICATE, PUBLIC_KEY):
            return "unsupported TLSA selector"
        if self.matching == _PRIVATE:
            return "reserved private-use matching type"
        size = _SIZES.get(self.matching)
        if (size is not None and len(self.data) != size) or not self.data:
            return "malformed TLSA association data"
        return ""

    def fits(self, certificate: bytes, key: bytes) -> bool:
        """Whether it says this of a certificate. Both in DER; key: SubjectPublicKeyInfo."""
        content = key if self.selector == PUBLIC_KEY else certificate
        if self.matching == FULL:
            return self.data == content
        digest = _HASHES.get(self.matching)
        return digest is not None and self.data == hashlib.new(digest, content).digest()

    def whole(self) -> str:
        """As in a zone file, RFC 6698 §2.2."""
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex().upper()}"

    def __str__(self) -> str:
        """As in a zone file, but a long one in short: its begin and end."""
        shown = self.data.hex().upper()
        if len(shown) > 64:
            shown = f"{shown[:32]}...{shown[-32:]}"
        return f"{self.usage} {self.selector} {self.matching} {shown}"


def parse_tlsa(rdata: bytes) -> Tlsa | None:
    """The record of its wire form, RFC 6698 §2.1; None for one that is too short."""
    if len(rdata) < _SHORTEST:
        return None
    return Tlsa(rdata[0], rdata[1], rdata[2], rdata[3:])


def read_tlsa(text: str) -> Tlsa | None:
    """The record of its form in zone files, RFC 6698 §2.2; None for what is none."""
    numbers, data = text.split(None, 3)[:3], "".join(text.split(None, 3)[3:])
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        return None
    try:
        octets = bytes.fromhex(data)
        return parse_tlsa(bytes(map(int, numbers)) + octets) if len(numbers) == 3 else None
    except ValueError:
        return None


def parse_tlsa_digests(entries: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """tls_dane_digests, strongest first: `sha512 sha256`, or `name=number` for others.

    Returns (algorithm, matching type). Raises ValueError with the complaint.
    """
    found: dict[int, str] = {}
    for entry in entries[:_MOST_DIGESTS]:
        name, equals, given = entry.lower().partition("=")
        if equals and not given.isdecimal():
            raise ValueError(f"Invalid matching type number in tls_dane_digests: {entry}")
        number = int(given[:9]) if equals else _NUMBERS.get(name, -1)
        if number < 0:
            raise ValueError(f"digest algorithm {name} needs an explicit number")
        if number in (0, _PRIVATE) or number > _PRIVATE:
            raise ValueError(f"Reserved matching type number in tls_dane_digests: {entry}")
        for fixed, standard in _NUMBERS.items():
            if number == standard and name != fixed:
                raise ValueError(f"matching type {number} can only be {fixed}")
        if number in found:
            raise ValueError(f"matching type {number} specified more than once")
        found[number] = name
    return tuple((name, number) for number, name in found.items())
