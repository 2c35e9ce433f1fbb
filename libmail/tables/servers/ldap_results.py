"""What the entries that a directory finds have to say: results, and where to search further.

Called by: the ldap table. Without I/O: it is given a function that searches. ldap_table(5) has the
rules, under result_attribute, special_result_attribute and the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import unquote

__all__ = ["AttributeNames", "Entry", "Expansion", "Search", "SearchRequest", "TooDeep"]

_BASE: Final = 0
_SCOPES: Final = {"": 0, "base": 0, "one": 1, "sub": 2}
_ANYTHING: Final = "(objectClass=*)"
_URLS: Final = ("ldap://", "ldaps://", "ldapi://")


class TooDeep(Exception):
    """Entries point to each other without end. `str()` says which."""


class Entry(NamedTuple):
    """An entry: its name, and its values by attribute, in the order of the server."""

    dn: str
    values: Mapping[str, Sequence[bytes]]


class SearchRequest(NamedTuple):
    """A search. scope: 0 for the base alone, 1 for what is directly below it, 2 for all below."""

    base: str
    scope: int
    filter: str
    attributes: Sequence[str]


@dataclass(frozen=True, slots=True)
class AttributeNames:
    """The attributes with results, by their treatment, as in the client file.

    One that is named more than once is terminal, else leaf, else ordinary, else special.
    """

    ordinary: Sequence[str] = ()
    special: Sequence[str] = ()
    terminal: Sequence[str] = ()
    leaf: Sequence[str] = ()

    @property
    def all(self) -> Sequence[str]:
        """What to ask the server for."""
        return [*self.ordinary, *self.special, *self.terminal, *self.leaf]


Search = Callable[[SearchRequest], Iterable[Entry]]


class Expansion:
    """Collects the results of entries, and of those that they point to."""

    def __init__(
        self, names: AttributeNames, search: Search, limit: int, missing: Callable[[str], object]
    ) -> None:
        """limit: how deep entries may point to entries (recursion_limit).

        missing: called with the name of an entry that one points to and that is not there.
        """
        self._all = names.all
        self._terminal = _folded(names.terminal)
        self._leaf = _folded(names.leaf) - self._terminal
        self._ordinary = _folded(names.ordinary) - self._leaf - self._terminal
        self._special = _folded(names.special) - self._ordinary - self._leaf - self._terminal
        self._search = search
        self._limit = limit
        self._missing = missing

    def results(self, entries: Iterable[Entry], above: tuple[str, ...] = ()) -> Iterator[str]:
        """Give the results, in the order of the server.

        above: what pointed to these entries. Raises TooDeep, ValueError for a bad URL, and what
        the search raises.
        """
        for entry in entries:
            present = _folded(entry.values)
            wanted = self._ordinary | self._special
            if present & self._terminal:
                wanted = self._terminal
            elif not present & self._special:
                wanted = wanted | self._leaf
            for name, values in entry.values.items():
                folded = name.lower()
                if folded not in wanted:
                    continue
                for value in values:
                    text = value.decode("utf-8", "surrogateescape")
                    if folded in self._special and wanted is not self._terminal:
                        yield from self._further(text, above)
                    else:
                        yield text

    def _further(self, pointer: str, above: tuple[str, ...]) -> Iterator[str]:
        if pointer in above:
            raise TooDeep(f"{pointer} points to itself")
        if len(above) >= self._limit:
            raise TooDeep(f"recursion limit exceeded at {pointer}")
        request = self._request(pointer)
        if not request.attributes:
            return
        entries = list(self._search(request))
        if not entries and request.base == pointer:
            self._missing(pointer)
        yield from self.results(entries, (*above, pointer))

    def _request(self, pointer: str) -> SearchRequest:
        if not pointer.lower().startswith(_URLS):
            return SearchRequest(pointer, _BASE, _ANYTHING, self._all)
        # RFC 4516: scheme://host/dn?attributes?scope?filter. The host does not matter.
        parts = pointer.partition("://")[2].partition("/")[2].split("?", 4)
        dn, attributes, scope, wanted = (unquote(part) for part in [*parts, "", "", ""][:4])
        if scope.lower() not in _SCOPES:
            raise ValueError(f"bad LDAP URL: {pointer}")
        names = self._selected(attributes.split(",")) if attributes else self._all
        return SearchRequest(dn, _SCOPES[scope.lower()], wanted or _ANYTHING, names)

    def _selected(self, names: Sequence[str]) -> Sequence[str]:
        """Those of a URL's attributes that are among ours, with the options of either."""
        selected = []
        for ours in self._all:
            for theirs in names:
                a, _, our_options = ours.lower().partition(";")
                b, _, their_options = theirs.lower().partition(";")
                if a != b or (our_options and their_options and our_options != their_options):
                    continue
                selected.append(theirs if their_options else ours)
        return selected


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
