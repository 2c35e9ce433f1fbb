"""What decisions ask: tables, match lists, DNS, the address resolver, time.

`LiveLookups` asks the real ones and can record each question with its answer; `ReplayedLookups`
gives those answers again. Every question that has no answer now raises `LookupFailure`, never
"not found".
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from libmail.dns.answers import (
    DnsError,
    DnsRecord,
    Filtered,
    Invalid,
    NotFound,
    NullMx,
    TempFail,
)
from libmail.dns.resolver import Resolver
from libmail.ipc.messages import ResolveReply
from libmail.service.pool import ServiceUnavailable
from libmail.tables.maps import AddressForms, Found, Maps
from libmail.tables.match import AddressList
from libmail.tables.table import TableError

__all__ = ["Asked", "LiveLookups", "LookupFailure", "Lookups", "ReplayedLookups", "Resolve"]

Resolve = Callable[[str, str], Awaitable[ResolveReply]]
R = TypeVar("R")


class LookupFailure(Exception):
    """The answer is not known now; the text says what failed. Always a temporary condition."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and its answer.

    kind: "table", "address", "hosts", "dns", "resolve". where: the table or parameter.
    failure: what failed, "" if there is an answer. dns_error: name of the error class, and rcode.
    """

    kind: str
    where: str
    key: str
    answer: object
    failure: str = ""
    dns_error: str = ""
    rcode: int = 0


class Lookups(Protocol):
    """What decisions may ask. Titles are names of parameters, or "type:table"."""

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """Search tables for a key; partial: it is a part of what is looked for."""

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """Search tables for the forms of an address."""

    def has(self, title: str) -> bool:
        """Whether there are tables, or items, under that title."""

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """Whether a host is in a list of networks and names."""

    async def dns(self, name: str, rrtype: str) -> tuple[DnsRecord, ...]:
        """Records of a name. Raises DnsError."""

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail for an address goes."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def now(self) -> float:
        """Seconds since the epoch."""


class LiveLookups:
    """Asks the real tables and services.

    maps, hosts: by title. record: where to append what was asked, None: nowhere.
    """

    def __init__(
        self,
        maps: Mapping[str, Maps],
        hosts: Mapping[str, AddressList],
        resolver: Resolver | None,
        resolve: Resolve,
        record: list[Asked] | None = None,
    ) -> None:
        self._maps = maps
        self._hosts = hosts
        self._resolver = resolver
        self._resolve = resolve
        self._record = record

    def has(self, title: str) -> bool:
        """Whether there are tables, or items, under that title."""
        return bool(self._maps.get(title) or self._hosts.get(title))

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """Search tables for a key. Raises LookupFailure."""
        maps = self._maps[title]
        if not maps.tables:
            return None
        found = await self._ask("table", title, key, maps.search(key, partial=partial))
        return None if found is None else found.value

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """Search tables for the forms of an address. Raises LookupFailure."""
        maps = self._maps[title]
        if not maps.tables:
            return None
        answer = maps.find_address(address, delimiters, forms, local=local)
        return await self._ask("address", title, address, answer)

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """Whether a host is in a list of networks and names. Raises LookupFailure."""
        answer = self._hosts[title].match(name, address)
        return await self._ask("hosts", title, f"{name}[{address}]", answer)

    async def dns(self, name: str, rrtype: str) -> tuple[DnsRecord, ...]:
        """Records of a name. Raises DnsError."""
        if self._resolver is None:
            raise TempFail(name, rrtype, "no resolver")
        try:
            answer = await self._resolver.lookup(name, rrtype)
        except DnsError as err:
            if self._record is not None:
                kind = type(err).__name__
                self._record.append(Asked("dns", rrtype, name, None, err.text, kind, err.rcode))
            raise
        if self._record is not None:
            self._record.append(Asked("dns", rrtype, name, answer.records))
        return answer.records

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail for an address goes. Raises LookupFailure."""
        return await self._ask("resolve", sender, address, self._resolve(sender, address))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def _ask(self, kind: str, where: str, key: str, question: Awaitable[R]) -> R:
        try:
            answer = await question
        except (TableError, ServiceUnavailable) as err:
            if self._record is not None:
                self._record.append(Asked(kind, where, key, None, str(err) or "failed"))
            raise LookupFailure(str(err)) from err
        if self._record is not None:
            self._record.append(Asked(kind, where, key, answer))
        return answer


_DNS_ERRORS: Mapping[str, type[DnsError]] = {
    error.__name__: error for error in (Filtered, Invalid, NotFound, NullMx, TempFail)
}


class ReplayedLookups:
    """Gives recorded answers again; what was not asked then raises LookupFailure."""

    def __init__(self, asked: Iterable[Asked], titles: Iterable[str], now: float) -> None:
        """titles: those that had tables or items. now: what the clock said."""
        self._answers = {(entry.kind, entry.where, entry.key): entry for entry in asked}
        self._titles = frozenset(titles)
        self._now = now

    def _answer(self, kind: str, where: str, key: str) -> object:
        entry = self._answers.get((kind, where, key))
        if entry is None:
            raise LookupFailure(f"{where}: {key}: not asked when this was recorded")
        if entry.dns_error:
            raise _DNS_ERRORS[entry.dns_error](key, where, entry.failure, entry.rcode)
        if entry.failure:
            raise LookupFailure(entry.failure)
        return entry.answer

    def has(self, title: str) -> bool:
        """Whether there were tables, or items, under that title."""
        return title in self._titles

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """The recorded answer."""
        if title not in self._titles:
            return None
        found = self._answer("table", title, key)
        return found.value if isinstance(found, Found) else None

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """The recorded answer."""
        if title not in self._titles:
            return None
        return cast(Found | None, self._answer("address", title, address))

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """The recorded answer."""
        return bool(self._answer("hosts", title, f"{name}[{address}]"))

    async def dns(self, name: str, rrtype: str) -> tuple[DnsRecord, ...]:
        """The recorded answer."""
        return cast(tuple[DnsRecord, ...], self._answer("dns", rrtype, name))

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """The recorded answer."""
        return cast(ResolveReply, self._answer("resolve", sender, address))

    async def sleep(self, seconds: float) -> None:
        """Do not wait."""

    def now(self) -> float:
        """The recorded time."""
        return self._now
