"""What decisions ask: tables, match lists, name services, other services, time.

`LiveLookups` asks the real ones; those of `libmail.lookup.record` stand in front of any, and write
down each question with its answer, or give recorded answers again.
Every question that has no answer now raises `LookupFailure`, never "not found".

A question to a service is a subclass of `Question`: `RouteQuestion` here, `PolicyQuestion` and
`VerifyQuestion` beside the restrictions that ask them. Another kind needs its class, and an entry
in the `services` that a daemon passes to `LiveLookups` (smtpd: `daemons.smtpd.server`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final, Generic, Protocol, TypeVar

from libmail.dns.answers import DnsAnswer, TempFail
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Protocols, Resolver
from libmail.ipc.messages import ResolveReply
from libmail.service.pool import ServiceUnavailable
from libmail.tables.maps import AddressForms, Found, Maps
from libmail.tables.match import AddressList
from libmail.tables.table import TableError

__all__ = [
    "List",
    "LiveLookups",
    "LookupFailure",
    "Lookups",
    "Question",
    "RouteQuestion",
    "Services",
]

A = TypeVar("A")


class LookupFailure(Exception):
    """A lookup failed, which is always a temporary condition; the text says what failed.

    title: of the tables that failed, "" if it was something else.
    """

    def __init__(self, text: str, title: str = "") -> None:
        super().__init__(text)
        self.title = title


@dataclass(slots=True, eq=False)
class Question(Generic[A]):
    """A question to a service, whose answer is an A. where, key: identify it in a record."""

    where: str
    key: str


class RouteQuestion(Question[ResolveReply]):
    """The route of mail from a sender (where) to an address (key), from trivial-rewrite(8)."""

    __slots__ = ()


Services = Mapping[type[Question[Any]], Callable[[Any], Awaitable[Any]]]
"""The function that answers each kind of question. Raises ServiceUnavailable, TableError."""


class List(Protocol):
    """A list of domains or other words."""

    def __bool__(self) -> bool:
        """Whether there is any item."""

    async def match(self, text: str, /) -> bool:
        """Raises TableRetry."""


class Lookups(Protocol):
    """What decisions may ask. Titles are names of parameters, or "type:table"."""

    def has(self, title: str) -> bool:
        """Whether there are tables, or items, under that title."""

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """Search tables for a key. partial: it is a part of the name or address in question, such
        as a parent domain."""

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """Search tables for the forms of an address."""

    async def in_list(self, title: str, text: str) -> bool:
        """Whether a domain or other word is in a list."""

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """Whether a host is in a list of networks and names."""

    async def dns(self, name: str, rrtype: str) -> DnsAnswer:
        """Records of a name. Raises DnsError."""

    async def system_addresses(self, host: str, protocols: Protocols) -> tuple[str, ...]:
        """Addresses of a host from the system's name services. Raises DnsError."""

    async def ask(self, question: Question[A]) -> A:
        """Ask a service."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def seed(self) -> int:
        """A seed for a generator of random numbers."""


class LiveLookups:
    """Asks the real tables and services."""

    def __init__(
        self,
        services: Services,
        *,
        maps: Mapping[str, Maps] | None = None,
        hosts: Mapping[str, AddressList] | None = None,
        lists: Mapping[str, List] | None = None,
        resolver: Resolver | None = None,
        native: NativeResolver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """maps, hosts, lists: by title."""
        self._services = services
        self._maps = maps or {}
        self._hosts = hosts or {}
        self._lists = lists or {}
        named = (*self._maps.items(), *self._hosts.items(), *self._lists.items())
        self._titles = frozenset(title for title, items in named if items)
        self._resolver = resolver
        self._native = native
        self._clock = clock

    def has(self, title: str) -> bool:
        """Whether there are tables, or items, under that title."""
        return title in self._titles

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """Search tables for a key. Raises LookupFailure."""
        maps = self._maps[title]
        if not maps.tables:
            return None
        try:
            found = await maps.search(key, partial=partial)
        except TableError as err:
            raise _failure(err) from err
        return None if found is None else found.value

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """Search tables for the forms of an address. Raises LookupFailure."""
        maps = self._maps[title]
        if not maps.tables:
            return None
        try:
            return await maps.find_address(address, delimiters, forms, local=local)
        except TableError as err:
            raise _failure(err) from err

    async def in_list(self, title: str, text: str) -> bool:
        """Whether a domain or other word is in a list. Raises LookupFailure."""
        try:
            return await self._lists[title].match(text)
        except TableError as err:
            raise _failure(err) from err

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """Whether a host is in a list of networks and names. Raises LookupFailure."""
        try:
            return await self._hosts[title].match(name, address)
        except TableError as err:
            raise _failure(err) from err

    async def dns(self, name: str, rrtype: str) -> DnsAnswer:
        """Records of a name. Raises DnsError."""
        if self._resolver is None:
            raise TempFail(name, rrtype, "no resolver")
        return await self._resolver.lookup(name, rrtype)

    async def system_addresses(self, host: str, protocols: Protocols) -> tuple[str, ...]:
        """Addresses of a host from the system's name services. Raises DnsError."""
        if self._native is None:
            raise TempFail(host, "A", "no resolver")
        return await self._native.addresses(host, protocols)

    async def ask(self, question: Question[A]) -> A:
        """Ask a service. Raises LookupFailure."""
        try:
            answer: A = await self._services[type(question)](question)
        except (TableError, ServiceUnavailable) as err:
            raise _failure(err) from err
        return answer

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def seed(self) -> int:
        """A seed for a generator of random numbers."""
        return _CHANCE.getrandbits(32)


_CHANCE: Final = SystemRandom()


def _failure(error: Exception) -> LookupFailure:
    return LookupFailure(str(error), getattr(error, "title", ""))
