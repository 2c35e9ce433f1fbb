"""Match lists: parameters such as mynetworks, mydestination or debug_peer_list.

An item is a string, a domain, a network, `/file/name` (a file with more items) or `type:table`
(matches where the table has the key).  `!` in front excludes what the item matches; the first
item that matches decides.  Three kinds of lists differ in what an item is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from libmail.files.freshness import read_source
from libmail.tables.braces import split_list
from libmail.tables.lines import logical_lines
from libmail.tables.networks import Network, NetworkError, parse_address, parse_network
from libmail.tables.registry import open_with
from libmail.tables.surrogate import UnavailableTable
from libmail.tables.table import Table, TableConfigError, TableError, TableOptions, TableRetry

__all__ = ["AddressList", "DomainList", "StringList"]

_MAX_DEPTH = 10  # files within files


@dataclass(frozen=True, slots=True)
class _Item:
    """One item: a table, or else a text in lower case."""

    negated: bool
    text: str
    table: Table | None = None


def _is_table(text: str) -> bool:
    return ":" in text and not text.startswith("[")


def _read_items(
    specs: str | Sequence[str], options: TableOptions, *, negated: bool = False, depth: int = 0
) -> Iterator[_Item]:
    texts = split_list(specs) if isinstance(specs, str) else specs
    for text in texts:
        bare = text.lstrip("!")
        exclude = negated != bool((len(text) - len(bare)) % 2)
        if not bare:
            if text:
                raise TableConfigError("no pattern after '!'")
        elif bare.startswith("/"):
            yield from _file_items(bare, options, exclude, depth)
        elif _is_table(bare):
            yield _Item(exclude, bare, open_with(bare, options))
        else:
            yield _Item(exclude, bare.lower() if bare.isascii() else bare.casefold())


def _file_items(path: str, options: TableOptions, negated: bool, depth: int) -> Iterator[_Item]:
    try:
        if depth >= _MAX_DEPTH:
            raise OSError(0, "too many files within files")
        with read_source(path) as file:
            lines = [text for _, text in logical_lines(file)]
    except OSError as error:
        problem = f"open file {path}: {error.strerror}"
        if options.strict:
            raise TableConfigError(problem) from error
        options.log.error(problem)
        unavailable = UnavailableTable(f"non-existent:{path}", problem, options.log)
        yield _Item(negated, path, unavailable)
        return
    for line in lines:
        yield from _read_items(line, options, negated=negated, depth=depth + 1)


async def _in_table(title: str, table: Table, key: str, options: TableOptions) -> bool:
    try:
        return await table.lookup(key) is not None
    except TableError as error:
        options.log.warning(f"{title}: {table.spec}: table lookup problem")
        raise TableRetry(f"{title}: {error}", title) from error


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else text.casefold()


class _ItemList:
    """What all lists have: items, of which the first that matches decides."""

    def __init__(
        self, title: str, specs: str | Sequence[str], options: TableOptions | None = None
    ) -> None:
        """title: name of the parameter, for the log.  specs: its text, or its items."""
        self.title = title
        self._options = TableOptions() if options is None else options
        self._items = tuple(_read_items(specs, self._options))

    def __bool__(self) -> bool:
        """Tell whether there is any item."""
        return bool(self._items)


class _HostList(_ItemList):
    """A list with domains.

    parent: an item `example.org` also stands for the domains below it (the parameter is in
    parent_domain_matches_subdomains); otherwise those are written `.example.org`.
    """

    def __init__(
        self,
        title: str,
        specs: str | Sequence[str],
        options: TableOptions | None = None,
        *,
        parent: bool = False,
    ) -> None:
        super().__init__(title, specs, options)
        self._parent = parent


class StringList(_ItemList):
    """A list of strings, compared as a whole and without regard to case."""

    async def match(self, text: str) -> bool:
        """Tell whether the text is in the list.  Raises `TableRetry`."""
        if not self._items:
            return False
        wanted = _folded(text)
        for item in self._items:
            if item.table is None:
                if wanted == item.text:
                    return not item.negated
            elif await _in_table(self.title, item.table, wanted, self._options):
                return not item.negated
        return False


class DomainList(_HostList):
    """A list of domains."""

    async def match(self, domain: str) -> bool:
        """Tell whether the domain is in the list.  Raises `TableRetry`."""
        if not self._items:
            return False
        name = _folded(domain)
        for item in self._items:
            if item.table is None:
                if _domain_matches(name, item.text, self._parent):
                    return not item.negated
            elif await _domain_in_table(self.title, item.table, name, self._parent, self._options):
                return not item.negated
        return False


def _domain_matches(name: str, item: str, parent: bool) -> bool:
    if name == item:
        return True
    if not name.endswith(item):
        return False
    if parent:
        return name.endswith("." + item)
    return item.startswith(".")


async def _domain_in_table(
    title: str, table: Table, name: str, parent: bool, options: TableOptions
) -> bool:
    if await _in_table(title, table, name, options):
        return True
    if table.pattern:
        return False
    dot = name.find(".", 1)
    while dot >= 0:
        if await _in_table(title, table, name[dot + parent :], options):
            return True
        dot = name.find(".", dot + 1)
    return False


@dataclass(frozen=True, slots=True)
class _Rule:
    """One item of an address list: a table, a network, or a host name.

    version: of the addresses that are compared with a network, or lead to the error; 0 for none.
    """

    negated: bool
    text: str
    table: Table | None = None
    network: Network | None = None
    error: str = ""
    version: int = 0


class AddressList(_HostList):
    """A list of networks, addresses and host names, such as mynetworks.

    `10.0.0.0/8`, `192.0.2.1`, `[2001:db8::]/32`, `[::1]`, `host.example.org`, `.example.org`.
    """

    @cached_property
    def _rules(self) -> tuple[_Rule, ...]:
        return tuple(_rule(item) for item in self._items)

    async def match(self, name: str, address: str) -> bool:
        """Tell whether a host is in the list.

        name: verified host name, "unknown" or "" where there is none.  address: numeric, as text.
        Raises `TableRetry`, also when the search comes to an item that looks like a network of the
        address's protocol and cannot be understood.
        """
        number = parse_address(address)
        host = _folded(name)
        for rule in self._rules:
            if rule.network is not None:
                if number is not None and rule.network.holds(number):
                    return not rule.negated
            elif rule.table is not None:
                if await self._host_in_table(rule.table, host, address):
                    return not rule.negated
            elif rule.error:
                if number is not None and number[0] == rule.version:
                    self._options.log.warning(f"{self.title}: {rule.error}")
                    raise TableRetry(f"{self.title}: {rule.error}", self.title)
            elif host and _domain_matches(host, rule.text, self._parent):
                return not rule.negated
        return False

    async def _host_in_table(self, table: Table, host: str, address: str) -> bool:
        if host and await _domain_in_table(self.title, table, host, self._parent, self._options):
            return True
        return await _in_table(self.title, table, address, self._options)


def _rule(item: _Item) -> _Rule:
    if item.table is not None:
        return _Rule(item.negated, item.text, table=item.table)
    text = item.text
    if not (_like_network(text) or parse_address(text.removeprefix("[").removesuffix("]"))):
        return _Rule(item.negated, text)
    try:
        return _Rule(item.negated, text, network=parse_network(text))
    except NetworkError as error:
        version = 6 if ":" in text else 4
        return _Rule(item.negated, text, error=str(error), version=version)


def _like_network(text: str) -> bool:
    """Whether a text is meant as a network; what else is no address is the name of a host."""
    return (":" in text or "/" in text) and not text.strip("0123456789abcdef.:[]/")
