"""Records of the lookups that a decision made, and their replay.

A record covers what its owner wants, such as one session or command. The same lookup may occur more
than once with different results; a replay returns them in the same order.
"""

from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from libmail.dns.answers import (
    DnsAnswer,
    DnsError,
    Filtered,
    Invalid,
    NotFound,
    NullMx,
    TempFail,
)
from libmail.dns.resolver import Protocols
from libmail.lookup.context import LookupFailure, Lookups, Question
from libmail.tables.maps import AddressForms, Found

__all__ = ["Asked", "RecordingLookups", "ReplayedLookups"]

R = TypeVar("R")
A = TypeVar("A")
_DNS_ERRORS: Final[Mapping[str, type[DnsError]]] = {
    error.__name__: error for error in (Filtered, Invalid, NotFound, NullMx, TempFail)
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A recorded lookup.

    kind: of lookup. where: the table or parameter, or `Question.where`. failure: what failed, "" if
    there is an answer. title: of the tables that failed. dns_error: name of the error class. rcode:
    see `DnsError`.
    """

    kind: str
    where: str
    key: str
    answer: object
    failure: str = ""
    title: str = ""
    dns_error: str = ""
    rcode: int = 0


class RecordingLookups:
    """Passes lookups on to others, and appends each with its result to `record`."""

    def __init__(self, lookups: Lookups, record: list[Asked]) -> None:
        self._lookups = lookups
        self._record = record

    async def _note(self, kind: str, where: str, key: str, answer: Awaitable[R]) -> R:
        note = self._record.append
        try:
            found = await answer
        except LookupFailure as err:
            note(Asked(kind, where, key, None, str(err) or "failed", err.title))
            raise
        except DnsError as err:
            name = type(err).__name__
            note(Asked(kind, where, key, None, err.text, "", name, err.rcode))
            raise
        note(Asked(kind, where, key, found))
        return found

    def has(self, title: str) -> bool:
        """Whether there are tables, or items, under that title."""
        answer = self._lookups.has(title)
        self._record.append(Asked("has", title, "", answer))
        return answer

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """Search tables for a key."""
        answer = self._lookups.find(title, key, partial=partial)
        return await self._note(_table(partial), title, key, answer)

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """Search tables for the forms of an address."""
        answer = self._lookups.find_address(title, address, delimiters, forms, local=local)
        return await self._note(_address(local), title, address, answer)

    async def in_list(self, title: str, text: str) -> bool:
        """Whether a domain or other word is in a list."""
        return await self._note("list", title, text, self._lookups.in_list(title, text))

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """Whether a host is in a list of networks and names."""
        answer = self._lookups.host_in_list(title, name, address)
        return await self._note("hosts", title, f"{name}[{address}]", answer)

    async def dns(self, name: str, rrtype: str) -> DnsAnswer:
        """Records of a name."""
        return await self._note("dns", rrtype, name, self._lookups.dns(name, rrtype))

    async def system_addresses(self, host: str, protocols: Protocols) -> tuple[str, ...]:
        """Addresses of a host from the system's name services."""
        answer = self._lookups.system_addresses(host, protocols)
        return await self._note("system", protocols, host, answer)

    async def ask(self, question: Question[A]) -> A:
        """Ask a service."""
        kind = type(question).__name__
        return await self._note(kind, question.where, question.key, self._lookups.ask(question))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._lookups.sleep(seconds)

    def now(self) -> float:
        """Seconds since the epoch."""
        answer = self._lookups.now()
        self._record.append(Asked("now", "", "", answer))
        return answer

    def seed(self) -> int:
        """A seed for a generator of random numbers."""
        answer = self._lookups.seed()
        self._record.append(Asked("seed", "", "", answer))
        return answer


def _table(partial: bool) -> str:
    return "part" if partial else "table"


def _address(local: bool) -> str:
    return "local address" if local else "address"


class ReplayedLookups:
    """Returns recorded results; a lookup that was not recorded raises LookupFailure."""

    def __init__(self, asked: Iterable[Asked]) -> None:
        self._answers: dict[tuple[str, str, str], list[Asked]] = {}
        for entry in asked:
            self._answers.setdefault((entry.kind, entry.where, entry.key), []).append(entry)

    def _answer(self, kind: str, where: str, key: str) -> object:
        entries = self._answers.get((kind, where, key))
        if entries is None:
            raise LookupFailure(f"{where}: {key}: not asked when this was recorded")
        entry = entries.pop(0) if len(entries) > 1 else entries[0]
        if entry.dns_error:
            raise _DNS_ERRORS[entry.dns_error](key, where, entry.failure, entry.rcode)
        if entry.failure:
            raise LookupFailure(entry.failure, entry.title)
        return entry.answer

    def has(self, title: str) -> bool:
        """Whether there were tables, or items, under that title."""
        return bool(self._answer("has", title, ""))

    async def find(self, title: str, key: str, *, partial: bool = False) -> str | None:
        """The recorded answer."""
        return cast(str | None, self._answer(_table(partial), title, key))

    async def find_address(
        self, title: str, address: str, delimiters: str, forms: AddressForms, *, local: bool
    ) -> Found | None:
        """The recorded answer."""
        return cast(Found | None, self._answer(_address(local), title, address))

    async def in_list(self, title: str, text: str) -> bool:
        """The recorded answer."""
        return bool(self._answer("list", title, text))

    async def host_in_list(self, title: str, name: str, address: str) -> bool:
        """The recorded answer."""
        return bool(self._answer("hosts", title, f"{name}[{address}]"))

    async def dns(self, name: str, rrtype: str) -> DnsAnswer:
        """The recorded answer."""
        return cast(DnsAnswer, self._answer("dns", rrtype, name))

    async def system_addresses(self, host: str, protocols: Protocols) -> tuple[str, ...]:
        """The recorded answer."""
        return cast(tuple[str, ...], self._answer("system", protocols, host))

    async def ask(self, question: Question[A]) -> A:
        """The recorded answer."""
        return cast(A, self._answer(type(question).__name__, question.where, question.key))

    async def sleep(self, seconds: float) -> None:
        """Do not wait."""

    def now(self) -> float:
        """The recorded time."""
        return cast(float, self._answer("now", "", ""))

    def seed(self) -> int:
        """The recorded seed."""
        return cast(int, self._answer("seed", "", ""))
