"""Resolving an address: address class, transport, next hop.

A decision over the lookup context, without I/O of its own. Titles are the names of parameters;
"mydestination" stands for all that is this machine itself. Source: trivial-rewrite(8),
transport(5), ADDRESS_CLASS_README.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from libmail.ipc.messages import Nexthop, ResolveFlag, ResolveReply, Transport
from libmail.lookup.context import LookupFailure, Lookups
from libmail.lookup.final_domain import AddressParser, Parsed
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import ResolveParams
from libmail.tables.maps import AddressForms, split_extension

__all__ = ["AddressResolver", "Resolved"]

_ERROR: Final = "error"
_AGENTS_WITH_REASON: Final = (_ERROR, "retry")  # their next hop is the text of a report
_UNDELIVERABLE: Final = "Address is undeliverable"
_BAD_SYNTAX: Final = "5.1.3 bad address syntax"
_DUNNO: Final = "DUNNO"
# Plain numbers: the operators of IntFlag are slow.
_FINAL: Final = ResolveFlag.FINAL | ResolveFlag.ANY_SENDER
_LOCAL: Final = int(ResolveFlag.LOCAL | _FINAL)
_ALIAS: Final = int(ResolveFlag.ALIAS | _FINAL)
_VIRTUAL: Final = int(ResolveFlag.VIRTUAL | _FINAL)
_RELAY: Final = int(ResolveFlag.RELAY)
_DEFAULT: Final = int(ResolveFlag.DEFAULT)
_ROUTED: Final = int(ResolveFlag.ROUTED)
_BAD: Final = int(ResolveFlag.ERROR | ResolveFlag.DEFAULT | ResolveFlag.ANY_SENDER)
_ANY_SENDER: Final = int(ResolveFlag.ANY_SENDER)
_SENDER_FORMS: Final = AddressForms.FULL | AddressForms.NO_EXTENSION | AddressForms.AT_DOMAIN


class Route(NamedTuple):
    """transport and nexthop as a parameter or table gives them; "" where it says nothing."""

    transport: str
    nexthop: str


@lru_cache(512)  # few routes are those of many addresses
def split_route(text: str) -> Route:
    """Split "transport:nexthop"; both parts may be empty."""
    transport, _, nexthop = text.partition(":")
    return Route(transport.strip(), nexthop.strip())


class Resolved(NamedTuple):
    """An answer; warnings: what whoever runs the system should know."""

    reply: ResolveReply
    warnings: tuple[str, ...]


class AddressResolver:
    """See trivial-rewrite(8), "resolve"."""

    def __init__(self, params: ResolveParams, rewriter: Rewriter) -> None:
        self._params = params
        self._rewriter = rewriter

    async def resolve(self, lookups: Lookups, sender: str, address: str) -> Resolved:
        """Where mail goes. Never raises for a table: the flag FAIL says that nothing is known."""
        one = _Resolution(self._params, self._rewriter, lookups)
        try:
            reply = await one.resolve(sender, address)
        except LookupFailure as err:
            one.warnings.append(f"{err.title} lookup failure" if err.title else str(err))
            reply = _reply(int(ResolveFlag.FAIL), "", "", address)
        return Resolved(reply, tuple(one.warnings))


class _Resolution(AddressParser):
    """The resolution of one address."""

    __slots__ = ()

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Raises LookupFailure."""
        parsed = await self.parse(address)
        if parsed.bad:
            return _reply(_BAD, _ERROR, _BAD_SYNTAX, address)
        return await self._route(sender, parsed)

    async def _route(self, sender: str, parsed: Parsed) -> ResolveReply:
        flags, route = await self._by_class(sender, parsed)
        if parsed.routed:
            flags |= _ROUTED
        route = await self._by_table(parsed, route)
        delimiters, forms = self._params.recipient_delimiter, AddressForms.DEFAULT
        found = await self._lookups.find_address(
            "relocated_maps", parsed.address, delimiters, forms, local=parsed.local
        )
        if found is not None:
            prefix = "5.1.6 User has moved to " if self._params.relocated_prefix_enable else ""
            route = Route(_ERROR, prefix + found.value)
        return _reply(flags, *route, parsed.address)

    async def _by_class(self, sender: str, parsed: Parsed) -> tuple[int, Route]:
        params, lookups, domain = self._params, self._lookups, parsed.domain
        if parsed.local:
            if params.helpful_warnings and not parsed.implied:
                await self._warn_of_overlap(domain, "mydestination")
            return _LOCAL, _completed(params.local_transport, domain)
        if await lookups.in_list("virtual_alias_domains", domain):
            if params.helpful_warnings:
                await self._warn_of_overlap(domain, "virtual_alias_domains")
            which = " in virtual alias table" if params.show_user_unknown_table_name else ""
            return _ALIAS, Route(_ERROR, f"5.1.1 User unknown{which}")
        if await lookups.in_list("virtual_mailbox_domains", domain):
            if params.helpful_warnings:
                await self._warn_of_overlap(domain, "virtual_mailbox_domains")
            return _VIRTUAL, _completed(params.virtual_transport, domain)
        if await lookups.in_list("relay_domains", domain):
            route = split_route(params.relay_transport)
            return self._elsewhere_flags(_RELAY), await self._by_relayhost(sender, route, domain)
        route = split_route(await self._default_transport(sender))
        return self._elsewhere_flags(_DEFAULT), await self._by_relayhost(sender, route, domain)

    def _elsewhere_flags(self, flag: int) -> int:
        """The flags of a domain that is not ours, whose route may depend on who sends."""
        params = self._params
        if params.sender_dependent_default_transport_maps or params.sender_dependent_relayhost_maps:
            return flag
        return flag | _ANY_SENDER

    async def _warn_of_overlap(self, domain: str, used: str) -> None:
        """Say that a domain is in two classes, of which the first one counts."""
        others: list[str] = []
        if used == "mydestination":
            others.append("virtual_alias_domains")
        if used != "virtual_mailbox_domains":
            others.append("virtual_mailbox_domains")
        if used != "mydestination":
            others.append("relay_domains")
        for name in others:
            if await self._lookups.in_list(name, domain):
                self.warnings.append(f"do not list domain {domain} in BOTH {used} and {name}")

    async def _default_transport(self, sender: str) -> str:
        key = sender or self._params.empty_address_default_transport_maps_lookup_key
        maps = "sender_dependent_default_transport_maps"
        return await self._by_sender(maps, key) or self._params.default_transport

    async def _by_relayhost(self, sender: str, route: Route, domain: str) -> Route:
        """Without a next hop of the transport's own, that of the sender, or relayhost."""
        if route.nexthop:
            return route
        key = sender or self._params.empty_address_relayhost_maps_lookup_key
        relay = await self._by_sender("sender_dependent_relayhost_maps", key)
        return Route(route.transport, relay or self._params.relayhost or domain)

    async def _by_sender(self, title: str, key: str) -> str:
        delimiters = self._params.recipient_delimiter
        found = await self._lookups.find_address(title, key, delimiters, _SENDER_FORMS, local=False)
        return "" if found is None or found.value.upper() == _DUNNO else found.value

    async def _by_table(self, parsed: Parsed, route: Route) -> Route:
        text = await self._transport(parsed)
        if text is None:
            return route
        found = split_route(text)
        if found.transport:
            other = _UNDELIVERABLE if found.transport in _AGENTS_WITH_REASON else parsed.domain
            return Route(found.transport, found.nexthop or other)
        return Route(route.transport, found.nexthop or route.nexthop)

    async def _transport(self, parsed: Parsed) -> str | None:
        """What transport(5) says."""
        lookups = self._lookups
        if not lookups.has("transport_maps"):
            return None
        for key, full in self._transport_keys(parsed):
            found = await lookups.find("transport_maps", key, partial=not full)
            if found is not None:
                return found
        return None

    def _transport_keys(self, parsed: Parsed) -> list[tuple[str, bool]]:
        """The keys in order of transport(5), and whether patterns are asked for them."""
        keys = [(parsed.address, True)]
        base, extension = split_extension(parsed.user, self._params.recipient_delimiter)
        if extension:
            keys.append((f"{base}@{parsed.domain}", False))
        keys.append((parsed.domain, False))
        if not parsed.domain.startswith("["):
            undotted = "transport_maps" in self._params.parent_domain_matches_subdomains
            dot = parsed.domain.find(".", 1)
            while dot >= 0:
                keys.append((parsed.domain[dot + undotted :], False))
                dot = parsed.domain.find(".", dot + 1)
        keys.append(("*", False))
        return keys


def _completed(text: str, domain: str) -> Route:
    route = split_route(text)
    return Route(route.transport, route.nexthop or domain)


def _reply(flags: int, transport: str, nexthop: str, recipient: str) -> ResolveReply:
    return ResolveReply(flags, Transport(transport), Nexthop(nexthop), recipient)
