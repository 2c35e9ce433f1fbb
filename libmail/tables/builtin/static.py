"""static:VALUE - the same answer for every key; `static:{ two words }` keeps the space."""

from __future__ import annotations

from libmail.tables.braces import strip_braces
from libmail.tables.entries import EntryError
from libmail.tables.file_values import value_of
from libmail.tables.table import KeyFilter, TableConfigError, TableOptions, key_filter

__all__ = ["StaticTable", "open_named"]


class StaticTable:
    """A table that knows every key. constant: what it says, of ASCII keys for certain."""

    pattern = True

    def __init__(self, spec: str, value: str, ready: KeyFilter) -> None:
        self.spec = spec
        self.constant = value
        self._ready = ready

    async def lookup(self, key: str) -> str | None:
        """Return the value, whatever the key."""
        return None if self._ready(key) is None else self.constant

    def close(self) -> None:
        """Do nothing: nothing is open."""


def open_named(kind: str, name: str, options: TableOptions) -> StaticTable:
    """Open `static:name`."""
    value = name
    if name.startswith("{"):
        try:
            value = strip_braces(name)
        except ValueError as error:
            raise TableConfigError(f"bad {kind}:name syntax: {error}") from None
    try:
        value = value_of(value, options)
    except EntryError as error:
        raise TableConfigError(str(error)) from None
    spec = f"{kind}:{name}"
    return StaticTable(spec, value, key_filter(spec, options, pattern=True))
