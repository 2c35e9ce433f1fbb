"""Name services, played from records: with those that DNSSEC does not vouch for."""

from __future__ import annotations

from collections.abc import Iterable

from libmail.dns.answers import DnsAnswer, DnsRecord, NotFound, TempFail

__all__ = ["PlayedDns"]

_MOST_ALIASES = 5


class PlayedDns:
    """Records are lines such as "a.test MX 10 mx.a.test"; "a.test FAIL" is an error for all types.

    insecure: names of which nothing is validated. A `libmail.dns.resolver.Resolver`, as far as
    LiveLookups needs it. asked: (name, type) of all questions.
    """

    def __init__(self, records: Iterable[str], insecure: Iterable[str] = ()) -> None:
        self._records: dict[tuple[str, str], list[str]] = {}
        for line in records:
            owner, kind, *rest = line.split(None, 2)
            self._records.setdefault((owner, kind), []).extend(rest)
        self._insecure = frozenset(insecure)
        self.asked: list[tuple[str, str]] = []

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        self.asked.append((name, rrtype))
        names = [name]
        while (values := self._records.get((names[-1], rrtype))) is None:
            if (names[-1], "FAIL") in self._records:
                raise TempFail(name, rrtype, f"no answer for {name}/{rrtype}")
            alias = self._records.get((names[-1], "CNAME"))
            if alias is None or len(names) == _MOST_ALIASES:
                raise NotFound(name, rrtype, f"no {rrtype} for {name}")
            names.append(alias[0])
        validated = self._insecure.isdisjoint(names)
        records = tuple(sorted((_record(names[-1], rrtype, v) for v in values), key=_rank))
        return DnsAnswer(name, names[-1], rrtype, records, validated, 60)


def _record(owner: str, rrtype: str, value: str) -> DnsRecord:
    if rrtype != "MX":
        return DnsRecord(owner, rrtype, 60, value)
    preference, host = value.split()
    return DnsRecord(owner, rrtype, 60, host, int(preference))


def _rank(record: DnsRecord) -> int:
    return record.preference
