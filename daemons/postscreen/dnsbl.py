"""postscreen_dnsbl_sites, and the score of a client.

An item is `domain=filter*weight`. A domain is looked up once, however many items it has. An item
adds its weight to the score if any address in the answer matches its filter. The reply to the
client names the domain of the item with the largest weight.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from libmail.dns.hostname import valid_hostname
from libmail.log import Fatal
from libmail.lookup.dnslists import matches_pattern, valid_pattern

__all__ = ["Score", "Site", "Sites", "read_sites"]

_ITEM: Final = re.compile(r"([^=*]*)(?:=([^*]*))?(?:\*(.*))?", re.S)
_WEIGHT: Final = re.compile(r"[+-]?[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Site:
    """An item. pattern: "" for any address."""

    domain: str
    pattern: str
    weight: int

    def lists(self, addresses: Sequence[str]) -> bool:
        """Whether an answer of the domain counts."""
        if not self.pattern:
            return bool(addresses)
        return any(matches_pattern(self.pattern, address) for address in addresses)


Sites = Mapping[str, tuple[Site, ...]]


def read_sites(items: Sequence[str]) -> Sites:
    """The items by their domains. Raises Fatal."""
    found: dict[str, tuple[Site, ...]] = {}
    for item in items:
        site = _read_site(item)
        found[site.domain] = (*found.get(site.domain, ()), site)
    return found


def _read_site(item: str) -> Site:
    match = _ITEM.fullmatch(item)
    domain, pattern, weight = match.groups() if match is not None else ("", None, None)
    if weight is not None and not _WEIGHT.fullmatch(weight):
        raise Fatal(f'bad DNSBL weight factor "{weight}" in "{item}"')
    if pattern is not None and not valid_pattern(pattern):
        raise Fatal(f"bad DNSBL filter syntax: {pattern}")
    if not valid_hostname(domain):
        raise Fatal(f'bad DNSBL domain name "{domain}" in "{item}"')
    return Site(domain, pattern or "", 1 if weight is None else int(weight))


@dataclass(slots=True)
class Score:
    """The score of a client by the answers so far.

    heaviest: domain of the matching item with the largest weight, "" for none. ttl: the smallest of
    all answers, seconds; -1 if none had one.
    """

    value: int = 0
    heaviest: str = ""
    ttl: int = -1
    _weight: int = field(default=0, repr=False)

    def add(self, sites: Sequence[Site], addresses: Sequence[str], ttl: int) -> None:
        """An answer of the domain that these items share."""
        if ttl >= 0:
            self.ttl = ttl if self.ttl < 0 else min(ttl, self.ttl)
        for site in sites:
            if not site.lists(addresses):
                continue
            self.value += site.weight
            if not self.heaviest or site.weight > self._weight:
                self.heaviest, self._weight = site.domain, site.weight
