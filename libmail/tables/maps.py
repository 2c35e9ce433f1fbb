"""A list of tables that is searched in order, as parameters such as virtual_alias_maps name it.

Called by: everything that looks something up under a parameter's name.  The tables open when the
`Maps` is made, which is before the jail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from enum import Flag, auto
from functools import cached_property
from typing import Final, NamedTuple

from libmail.tables.braces import split_list
from libmail.tables.registry import open_with
from libmail.tables.table import Table, TableError, TableFailed, TableOptions, TableRetry
from libmail.text.quoting import quote_local
from libmail.text.search import First, any_first

__all__ = ["AddressForms", "Found", "Maps", "address_keys", "split_extension"]


class AddressForms(Flag):
    """The forms of an address that are looked up.  They are tried in the order of this list."""

    FULL = auto()  # user+ext@domain
    NO_EXTENSION = auto()  # user@domain
    LOCAL_IF_LOCAL = auto()  # user+ext and user, where the domain is one of ours
    AT_DOMAIN = auto()  # @domain

    DEFAULT = FULL | NO_EXTENSION | LOCAL_IF_LOCAL | AT_DOMAIN  # virtual(5), canonical(5)


_DEFAULT: Final = AddressForms.DEFAULT  # to be compared with: operators of enumerations are slow


class Found(NamedTuple):
    """What a search found.

    key: the form of the address that was in the table.  spec: the table that had it.
    extension: the part of the local part that the key leaves out, with its delimiter ("+news").
    """

    value: str
    key: str
    spec: str
    extension: str = ""


def split_extension(localpart: str, delimiters: str) -> tuple[str, str]:
    """Split "user+ext" into "user" and "+ext"; the second part is "" without extension.

    delimiters: the recipient_delimiter parameter; the first of its characters that occurs in the
    local part counts.  Names that mail systems need never have one (postmaster, mailer-daemon,
    double-bounce), nor do owner-list and list-request when "-" is a delimiter.
    """
    if not delimiters:
        return localpart, ""
    at = min((i for d in delimiters if (i := localpart.find(d)) >= 0), default=-1)
    if at <= 0:
        return localpart, ""
    folded = localpart.lower()
    if folded in ("postmaster", "mailer-daemon", "double-bounce"):
        return localpart, ""
    if localpart[at] == "-" and (folded.startswith("owner-") or folded.endswith("-request")):
        return localpart, ""
    return localpart[:at], localpart[at:]


def address_keys(
    address: str, delimiters: str, forms: AddressForms, *, local: bool
) -> Iterator[tuple[str, str, bool]]:
    """Give the keys to look up for an address: (key, extension left out, is the full address).

    local: the domain is in myorigin, mydestination or an interface of ours.
    """
    localpart, at, domain = address.rpartition("@")
    if not at:
        localpart, domain = address, ""
    base, extension = split_extension(localpart, delimiters)
    if AddressForms.FULL in forms:
        yield address, "", True
    if AddressForms.NO_EXTENSION in forms and extension:
        yield f"{base}{at}{domain}", extension, False
    if AddressForms.LOCAL_IF_LOCAL in forms and at and local:
        yield localpart, "", False
        if extension:
            yield base, extension, False
    if AddressForms.AT_DOMAIN in forms and at:
        yield f"@{domain}", "", False


class Maps:
    """An ordered list of tables under one title, usually the name of the parameter."""

    def __init__(
        self, title: str, specs: str | Sequence[str], options: TableOptions | None = None
    ) -> None:
        """Open the tables.

        specs: the text of the parameter, or its items.  Raises `TableConfigError` as
        `libmail.tables.registry.open_with` does.
        """
        self.title = title
        self._options = TableOptions() if options is None else options
        names = split_list(specs) if isinstance(specs, str) else specs
        self.tables: tuple[Table, ...] = tuple(open_with(name, self._options) for name in names)

    def titled(self, title: str) -> Maps:
        """The same tables under another title."""
        other = copy(self)
        other.title = title
        return other

    @cached_property
    def screen(self) -> First | None:
        """Finds texts in content: a key without any of them is in no table. None: not known."""
        screens: list[First] = []
        for table in self.tables:
            screen: First | None = getattr(table, "screen", None)
            if screen is None:
                return None
            screens.append(screen)
        return any_first(screens)

    @property
    def constant(self) -> str | None:
        """What all ASCII keys have; None: that depends on the key."""
        constant: str | None = getattr(self.tables[0], "constant", None) if self.tables else None
        return constant or None

    def __bool__(self) -> bool:
        """Tell whether there is any table."""
        return bool(self.tables)

    async def find(self, key: str) -> str | None:
        """Return the value of the first table that has the key, or None.

        Raises `TableRetry`; an empty value is treated as such an error.
        """
        found = await self.search(key)
        return None if found is None else found.value

    async def search(self, key: str, *, partial: bool = False) -> Found | None:
        """Like `find`; also tells which table answered.

        partial: the key is a part of what is looked for; tables of patterns are left out.
        """
        if not key:
            # An empty key is in no table; some table types cannot even be asked.
            return None
        for table in self.tables:
            if partial and table.pattern:
                continue
            try:
                value = await table.lookup(key)
            except TableError as error:
                self._options.log.warning(f'{table.spec} lookup error for "{key}"')
                raise TableRetry(f"{self.title}: {error}", self.title) from error
            if value is None:
                continue
            if not value:
                raise self._empty(table, key)
            return Found(value, key, table.spec)
        return None

    def _empty(self, table: Table, key: str) -> TableRetry:
        problem = f"{self.title} lookup of {key} returns an empty string result"
        self._options.log.warning(problem)
        self._options.log.warning(f"{self.title} should return NO RESULT in case of NOT FOUND")
        return TableFailed(table.spec, problem)

    async def find_address(
        self,
        address: str,
        delimiters: str = "",
        forms: AddressForms = AddressForms.DEFAULT,
        *,
        local: bool = False,
    ) -> Found | None:
        """Search the forms of an address in their order.

        address: internal form; one that has to be quoted is first looked up in external form.
        delimiters: recipient_delimiter.  local: see `address_keys`.
        Raises `TableRetry`.
        """
        if not self.tables:
            return None
        odd = quote_local(address) != address
        tried = not odd and (forms is _DEFAULT or AddressForms.FULL in forms)
        if tried:  # before keys are made that are not needed: most are found so
            found = await self.search(address)
            if found is not None:
                return found
        localpart, _, domain = address.rpartition("@")
        for key, extension, full in address_keys(address, delimiters, forms, local=local):
            if full and tried:
                continue
            found = None
            if odd and (full or key != f"@{domain}"):
                alone = not full and localpart.startswith(key)
                quoted = quote_local(f"{key}@")[:-1] if alone else quote_local(key)
                found = await self.search(quoted, partial=not full)
            if found is None:
                found = await self.search(key, partial=not full)
            if found is not None:
                return Found(found.value, key, found.spec, extension)
        return None

    def close(self) -> None:
        """Close all tables."""
        for table in self.tables:
            table.close()
