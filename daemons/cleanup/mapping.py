"""Address mapping: canonical(5), masquerading, virtual(5).

Decisions over tables and the rewriting service. All addresses are in internal form.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn, Protocol

from daemons.cleanup.params import MappingParams
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupStatus
from libmail.log import LOG
from libmail.message.addresses import AddressField
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.address import quote_local, split_address
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.table import TableRetry

__all__ = ["ENVELOPE_RECIPIENT", "ENVELOPE_SENDER", "HEADER_RECIPIENT", "HEADER_SENDER",
           "AddressMapper", "MappingTables"]  # fmt: skip

ENVELOPE_SENDER: Final = "envelope_sender"
ENVELOPE_RECIPIENT: Final = "envelope_recipient"
HEADER_SENDER: Final = "header_sender"
HEADER_RECIPIENT: Final = "header_recipient"
_CLASSES: Final = (ENVELOPE_SENDER, ENVELOPE_RECIPIENT, HEADER_SENDER, HEADER_RECIPIENT)

_MAX_CANONICAL: Final = 10  # canonical mappings of one address, which are recursive
_NOBODY: Final = '""'  # the null address among others
_TRY_LATER: Final = "message not accepted, try again later"


class Rewriter(Protocol):
    """The client of trivial-rewrite(8)."""

    async def rewrite(self, context: str, address: str) -> str:
        """Raises ServiceUnavailable."""


class Domains(Protocol):
    """The domains that are this machine's."""

    async def match(self, domain: str, /) -> bool:
        """Raises TableRetry."""


class MappingTables(NamedTuple):
    """The tables of the parameters with these names; local_domains: see `LocalDomains`."""

    local_domains: Domains
    canonical_maps: Maps
    sender_canonical_maps: Maps
    recipient_canonical_maps: Maps
    masquerade_exceptions: StringList
    virtual_alias_maps: Maps


class _ClassRules(NamedTuple):
    """How the addresses of a class are mapped. maps: in the order in which they apply."""

    maps: tuple[Maps, ...]
    masquerade: bool


class AddressMapper:
    """Maps addresses. All methods raise `Refused` when a table or service fails."""

    def __init__(self, params: MappingParams, tables: MappingTables, rewriter: Rewriter) -> None:
        self._params = params
        self._tables = tables
        self._rewriter = rewriter
        self._rules = {name: self._class_rules(name) for name in _CLASSES}
        self._canonical_extension = "canonical" in params.propagate_unmatched_extensions
        self._virtual_extension = "virtual" in params.propagate_unmatched_extensions
        # Whether recipients may become others.
        self.maps_recipients: Final = bool(
            tables.virtual_alias_maps or self.maps_class(ENVELOPE_RECIPIENT)
        )

    def _class_rules(self, name: str) -> _ClassRules:
        params, tables = self._params, self._tables
        wanted = (
            (tables.sender_canonical_maps, params.sender_canonical_classes),
            (tables.recipient_canonical_maps, params.recipient_canonical_classes),
            (tables.canonical_maps, params.canonical_classes),
        )
        kind = "recipient" if name.endswith("sender") else "sender"
        maps = tuple(
            maps for maps, classes in wanted
            if maps and name in classes and not maps.title.startswith(f"{kind}_")
        )  # fmt: skip
        return _ClassRules(
            maps, bool(params.masquerade_domains) and name in params.masquerade_classes
        )

    def maps_class(self, name: str) -> bool:
        """Whether any mapping applies to addresses of the class."""
        rules = self._rules[name]
        return bool(rules.maps) or rules.masquerade

    # trivial-rewrite

    async def rewrite(self, context: str, queue_id: str, address: str) -> str:
        """The complete address, internal form, of one in external form."""
        try:
            return await self._rewriter.rewrite(context, address)
        except ServiceUnavailable as err:
            LOG.warning(f"{queue_id}: {err}")
            raise Refused(CleanupStatus.DEFER, "4.3.0", "Temporary rewrite failure") from err

    # canonical, masquerade

    async def map_class(self, name: str, queue_id: str, address: str) -> str:
        """Apply the canonical tables and masquerading of an address class."""
        rules = self._rules[name]
        for maps in rules.maps:
            address = await self._canonical(maps, queue_id, address)
        if name == ENVELOPE_SENDER and address.startswith("@") and not split_address(address)[0]:
            return ""
        if rules.masquerade:
            address = await self._masquerade(queue_id, address)
        return address

    async def _canonical(self, maps: Maps, queue_id: str, address: str) -> str:
        current = address
        for _ in range(_MAX_CANONICAL):
            results = await self._lookup(maps, queue_id, current, self._canonical_extension)
            if not results:
                return current
            if len(results) > 1:
                LOG.warning(f"{queue_id}: multi-valued {maps.title} entry for {current}")
            if results[0].lower() == current.lower():
                return results[0]
            current = results[0]
        LOG.warning(
            f"{queue_id}: unreasonable {maps.title} map nesting for {address} -- {_TRY_LATER}"
        )
        raise _alias_error()

    async def _masquerade(self, queue_id: str, address: str) -> str:
        user, domain = split_address(address)
        folded = domain.lower()
        for item in self._params.masquerade_domains:
            keep = len(item) - len(item.lstrip("!"))
            parent = item.lstrip("!").lower()
            if folded != parent and not folded.endswith(f".{parent}"):
                continue
            if folded == parent or keep % 2 or await self._is_exception(queue_id, user):
                return address
            return f"{user}@{parent}"
        return address

    async def _is_exception(self, queue_id: str, user: str) -> bool:
        exceptions = self._tables.masquerade_exceptions
        try:
            return bool(exceptions) and await exceptions.match(user)
        except TableRetry as err:
            LOG.warning(f"{queue_id}: masquerade_exceptions lookup error -- {_TRY_LATER}")
            raise _lookup_failure() from err

    # virtual aliases

    async def expand(self, queue_id: str, address: str) -> list[str]:
        """The addresses that virtual_alias_maps makes of one; the address itself if none.

        An alias that has itself among its results delivers there, too. The first result takes
        the place of the address, the others are added behind what is there.
        """
        maps = self._tables.virtual_alias_maps
        if not maps:
            return [address]
        params = self._params
        targets = [address]
        final: set[str] = set()  # expanded into themselves
        at = 0
        while at < len(targets):
            if len(targets) > params.virtual_alias_expansion_limit:
                self._unreasonable(queue_id, "expansion size", address)
            depth = 0
            while targets[at].lower() not in final:
                if depth >= params.virtual_alias_recursion_limit:
                    self._unreasonable(queue_id, "nesting", address)
                current = targets[at]
                results = await self._lookup(maps, queue_id, current, self._virtual_extension)
                if not results:
                    break
                self._check_lengths(queue_id, results)
                if current.lower() in (result.lower() for result in results):
                    final.add(current.lower())
                targets[at] = results[0]
                targets += results[1:]
                depth += 1
            at += 1
        return targets

    def _unreasonable(self, queue_id: str, what: str, address: str) -> NoReturn:
        title = self._tables.virtual_alias_maps.title
        LOG.warning(f"{queue_id}: unreasonable {title} map {what} for {address} -- {_TRY_LATER}")
        raise _alias_error()

    def _check_lengths(self, queue_id: str, results: Sequence[str]) -> None:
        for result in results:
            if len(result) > self._params.virtual_alias_address_length_limit:
                LOG.warning(
                    f"{queue_id}: unreasonable {self._tables.virtual_alias_maps.title}"
                    f" result {result[:300]}... -- {_TRY_LATER}"
                )
                raise _alias_error()

    # lookups

    async def find(self, maps: Maps, queue_id: str, address: str) -> str | None:
        """What the tables say about an address, in the order of virtual(5)."""
        found = await self._search(maps, queue_id, address)
        return None if found is None else found[0]

    async def _search(self, maps: Maps, queue_id: str, address: str) -> tuple[str, str] | None:
        """The value, and the extension that the key in the table did not have."""
        params = self._params
        domain = split_address(address)[1]
        try:
            local = domain.lower() == params.myorigin.lower() or (
                await self._tables.local_domains.match(domain)
            )
            found = await maps.find_address(address, params.recipient_delimiter, local=local)
        except TableRetry as err:
            LOG.warning(
                f"{queue_id}: {maps.title} map lookup problem for {address} -- {_TRY_LATER}"
            )
            raise _lookup_failure() from err
        return None if found is None else (found.value, found.extension)

    async def _lookup(self, maps: Maps, queue_id: str, address: str, propagate: bool) -> list[str]:
        """The complete addresses that the tables give for one; [] for none."""
        found = await self._search(maps, queue_id, address)
        if found is None:
            return []
        value, extension = found
        if value.startswith("@"):
            value = quote_local(f"{split_address(address)[0]}{value}")
            extension = ""
        mailboxes = AddressField(value).mailboxes
        if not mailboxes:
            LOG.warning(f'{maps.title} lookup of {address} returns non-address result "{value}"')
            LOG.warning(
                f"{queue_id}: {maps.title} map lookup problem for {address} -- {_TRY_LATER}"
            )
            raise _lookup_failure()
        results: list[str] = []
        for mailbox in [one for one in mailboxes if one.address] or mailboxes[:1]:
            complete = await self.rewrite("local", queue_id, mailbox.address or _NOBODY)
            if propagate and extension:
                user, domain = split_address(complete)
                complete = f"{user}{extension}@{domain}"
            results.append(complete)
        return results


def _alias_error() -> Refused:
    return Refused(CleanupStatus.DEFER, "4.6.0", "Alias expansion error")


def _lookup_failure() -> Refused:
    """The original tells its clients of a write error, in so many words."""
    return Refused(CleanupStatus.WRITE, "4.3.0", "Temporary lookup failure")
