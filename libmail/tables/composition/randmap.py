"""randmap:{value, ...} - one of the values, by chance, for every key."""

from __future__ import annotations

import random
from collections.abc import Sequence

from libmail.tables.braces import split_list, strip_braces
from libmail.tables.entries import EntryError
from libmail.tables.file_values import value_of
from libmail.tables.table import KeyFilter, TableConfigError, TableOptions, key_filter

__all__ = ["RandomTable", "open_named"]


class RandomTable:
    """A table that knows every key and takes its answer by chance."""

    pattern = True

    def __init__(self, spec: str, values: Sequence[str], ready: KeyFilter) -> None:
        self.spec = spec
        self._values = values
        self._ready = ready

    async def lookup(self, key: str) -> str | None:
        """Return one of the values, whatever the key."""
        return None if self._ready(key) is None else random.choice(self._values)

    def close(self) -> None:
        """Do nothing: nothing is open."""


def open_named(kind: str, name: str, options: TableOptions) -> RandomTable:
    """Open `randmap:{...}`."""
    problem = f'bad syntax: "{kind}:{name}"; need "{kind}:{{value...}}"'
    try:
        items = split_list(strip_braces(name))
        values = [strip_braces(item) if item.startswith("{") else item for item in items]
    except ValueError:
        values = []
    if not values:
        raise TableConfigError(problem)
    try:
        values = [value_of(value, options) for value in values]
    except EntryError as error:
        raise TableConfigError(str(error)) from None
    spec = f"{kind}:{name}"
    return RandomTable(spec, values, key_filter(spec, options, pattern=True))
