"""What depends on the client: which keywords it sees, how its lines end, whose domain completes its
headers, whether Milters see its mail.

Answers are remembered for a minute where every message or session asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from daemons.smtpd.prepared import Prepared
from libmail.config.declare import split_list
from libmail.log import LOG
from libmail.lookup.context import LookupFailure, Lookups
from libmail.lookup.facts import Client, Facts
from libmail.lookup.milters import Unfiltered, unfiltered
from libmail.lookup.xclient import Forwarded
from libmail.net.cache import ExpiringCache
from libmail.smtp.server import BareNewline
from libmail.tables.match import AddressList
from libmail.tables.table import TableRetry

__all__ = ["ClientRules", "Trust"]

_CACHE_SIZE: Final = 5000
_CACHE_LIFE: Final = 60.0


def _keywords(words: Iterable[str]) -> frozenset[str]:
    """Keywords in upper case; words that are none count as well, and do nothing."""
    return frozenset(word.upper() for word in words)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a client may say of others: smtpd_authorized_xclient_hosts, ..._xforward_hosts."""

    xclient: bool = False
    xforward: bool = False


_NONE: Final = Trust()


class ClientRules:
    """Decides for one client after the other; knows no session."""

    def __init__(self, prepared: Prepared, lookups: Lookups) -> None:
        self.prepared = prepared
        self.params = prepared.params
        self.lookups = lookups
        self._discard = _keywords(prepared.params.smtpd_discard_ehlo_keywords)
        self._newlines: ExpiringCache[str, BareNewline] = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)
        self._contexts: ExpiringCache[str, str] = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)

    async def discarded(self, address: str) -> frozenset[str]:
        """EHLO keywords that a client does not get to see. A failing table hides nothing more."""
        maps = self.prepared.discard_maps
        if maps:
            try:
                found = await maps.find(address)
            except TableRetry:
                found = None
            if found is not None:
                return _keywords(found.replace(",", " ").split())
        return self._discard

    async def trust(self, client: Client) -> Trust:
        """What a client may say of others; nothing while a table fails."""
        prepared = self.prepared
        if not prepared.xclient_hosts and not prepared.xforward_hosts:
            return _NONE
        return Trust(
            await self._listed(prepared.xclient_hosts, client),
            await self._listed(prepared.xforward_hosts, client),
        )

    async def _listed(self, hosts: AddressList, client: Client) -> bool:
        try:
            return bool(hosts) and await hosts.match(client.name, client.address)
        except TableRetry as err:
            LOG.warning(f"{hosts.title}: {err}")
            return False

    async def allows_verp(self, facts: Facts) -> bool:
        """Whether the client may ask for VERP; not while a table fails."""
        return await self._listed(self.prepared.verp_clients, facts.client)

    async def newlines(self, name: str, address: str) -> BareNewline:
        """How lines of a client end."""
        known = self._newlines.get(address)
        if known is None:
            known = await self._decide_newlines(name, address)
            self._newlines.put(address, known)
        return known

    async def _decide_newlines(self, name: str, address: str) -> BareNewline:
        setting = self.params.smtpd_forbid_bare_newline
        if setting in ("no", "note"):
            return BareNewline.ALLOW
        try:
            if await self.prepared.newline_exclusions.match(name, address):
                return BareNewline.ALLOW
        except TableRetry:
            pass  # a client that cannot be excluded now is not
        return BareNewline.REJECT if setting == "reject" else BareNewline.NORMALIZE

    async def rewrite_context(self, facts: Facts, forwarded: Forwarded | None) -> str:
        """ "local" for clients whose headers are completed with our domain, or another domain."""
        if forwarded is not None and forwarded.local is not None:
            return "local" if forwarded.local else self.params.remote_header_rewrite_domain
        known = self._contexts.get(facts.client.address)
        if known is None:
            local = await self._is_local(facts)
            known = "local" if local else self.params.remote_header_rewrite_domain
            self._contexts.put(facts.client.address, known)
        return known

    async def _is_local(self, facts: Facts) -> bool:
        titles = {"permit_inet_interfaces": "inet_interfaces", "permit_mynetworks": "mynetworks"}
        name, address = facts.client.name, facts.client.address
        for word in self.params.local_header_rewrite_clients:
            try:
                if word.lower() in titles:
                    if await self.lookups.host_in_list(titles[word.lower()], name, address):
                        return True
                elif ":" in word and await self.prepared.address_map.find(address) is not None:
                    return True
            except (LookupFailure, TableRetry) as err:
                LOG.warning(f"local_header_rewrite_clients: {err}")
        return False

    async def unfiltered(self, address: str) -> Unfiltered:
        """What happens to mail of a client that Milters should see."""
        params = self.params
        milters = params.smtpd_milters
        try:
            found = await self.prepared.milter_maps.find(address)
        except TableRetry as err:
            LOG.warning(f"smtpd_milter_maps: {err}")
            return unfiltered(("unknown",), "tempfail")
        if found is not None:
            milters = () if found.upper() == "DISABLE" else split_list(found)
        return unfiltered(milters, params.milter_default_action)
