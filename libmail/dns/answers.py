"""What a DNS lookup gives: records, or one of a few typed errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = [
    "DnsAnswer",
    "DnsError",
    "DnsRecord",
    "Filtered",
    "Invalid",
    "NotFound",
    "NullMx",
    "TempFail",
    "is_null_mx",
]


class DnsError(Exception):
    """A lookup gave no records.

    name, rrtype: what was asked.  text: one line, fit for a delivery report.
    rcode: RFC 1035 §4.1.1; 0 where the name exists, and for errors without a reply.
    """

    def __init__(self, name: str, rrtype: str, text: str, rcode: int = 0) -> None:
        super().__init__(text)
        self.name = name
        self.rrtype = rrtype
        self.text = text
        self.rcode = rcode

    def again(self) -> Self:
        """Return an equal error to raise: a remembered one must not collect tracebacks."""
        return type(self)(self.name, self.rrtype, self.text, self.rcode)


class NotFound(DnsError):
    """The name does not exist (rcode 3), or has no record of this type (rcode 0).  Permanent."""


class TempFail(DnsError):
    """No usable reply: time ran out, or the servers failed.  Try again later."""


class Filtered(DnsError):
    """There are records, and a reply filter overlooks all of them.  To be tried again."""


class Invalid(DnsError):
    """The reply cannot be used, or the name cannot be asked for."""


class NullMx(DnsError):
    """The domain says that it does not accept mail (RFC 7505).  Permanent."""


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """One resource record.

    value: the host (MX, PTR, CNAME, NS, SRV) without the dot at the end, the address (A, AAAA),
    the joined strings (TXT), or the presentation form of other data.
    """

    owner: str
    rrtype: str
    ttl: int
    value: str
    preference: int = 0  # MX; priority of SRV
    weight: int = 0  # SRV
    port: int = 0  # SRV


def is_null_mx(records: Sequence[DnsRecord]) -> bool:
    """Tell whether MX records say that the domain accepts no mail, RFC 7505 §3.

    One such record is enough, also among others, where it should not be.
    """
    return any(not record.value and record.rrtype == "MX" for record in records)


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The records of a name.

    final: the name at the end of the CNAME chain.  validated: the resolver vouches for the data
    (the AD bit of a reply to a DNSSEC query).  ttl: seconds that all of it stays good.
    """

    name: str
    final: str
    rrtype: str
    records: tuple[DnsRecord, ...]
    validated: bool
    ttl: int
