"""SRV records: the name that is asked for, and the order of the servers, RFC 2782."""

import random
from collections.abc import Sequence
from itertools import groupby

from libmail.dns.answers import DnsRecord

__all__ = ["in_order", "is_unavailable", "service_name"]


def service_name(service: str, domain: str) -> str:
    """Where the records of a service over TCP are."""
    return f"_{service}._tcp.{domain}"


def is_unavailable(records: Sequence[DnsRecord]) -> bool:
    """Whether they say that the domain does not have the service: the only target is the root."""
    return not any(record.value for record in records)


def in_order(records: Sequence[DnsRecord], chance: random.Random) -> list[DnsRecord]:
    """By priority, lowest first; among equals by chance, in proportion to their weights.

    records: sorted by priority. Those that name no target are left out.
    """
    named = [record for record in records if record.value]
    ordered: list[DnsRecord] = []
    for _, group in groupby(named, key=lambda record: record.preference):
        ordered += _by_weight(list(group), chance)
    return ordered


def _by_weight(records: list[DnsRecord], chance: random.Random) -> list[DnsRecord]:
    """One after the other is drawn; a weight of 0 leaves a small chance, RFC 2782, "Weight"."""
    left = sorted(records, key=lambda record: record.weight)
    drawn = []
    while len(left) > 1:
        point = chance.randint(0, sum(record.weight for record in left))
        at = 0
        for at, record in enumerate(left):  # noqa: B007
            point -= record.weight
            if point <= 0:
                break
        drawn.append(left.pop(at))
    return drawn + left
