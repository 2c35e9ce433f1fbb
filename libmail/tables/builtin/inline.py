"""inline:{ key=value, { key = text with space } ... } - a table inside the parameter value."""

from __future__ import annotations

from libmail.tables.braces import split_list, strip_braces
from libmail.tables.builtin.memory import MemoryTable
from libmail.tables.entries import EntryError
from libmail.tables.file_values import value_of
from libmail.tables.table import TableConfigError, TableOptions, key_filter

__all__ = ["open_named"]


def open_named(kind: str, name: str, options: TableOptions) -> MemoryTable:
    """Open `inline:name`; a later entry replaces an earlier one with the same key."""
    what = "filename" if options.files else "value"
    need = f'"{kind}:{name}"; need "inline:{{name={what}...}}"'
    items = _items(name, need)
    ready = key_filter(f"{kind}:{name}", options)
    entries: dict[str, str] = {}
    for item in items:
        key, value = _pair(item, need)
        folded = ready(key)
        try:
            value = value_of(value, options)
        except EntryError as error:
            raise TableConfigError(f"{error}: {need}") from None
        if folded is not None:
            entries[folded] = value
    return MemoryTable(f"{kind}:{name}", entries, ready)


def _items(name: str, need: str) -> list[str]:
    try:
        items = split_list(strip_braces(name))
    except ValueError:
        items = []
    if not items:
        raise TableConfigError(f"bad syntax: {need}")
    return items


def _pair(item: str, need: str) -> tuple[str, str]:
    text = item
    if item.startswith("{"):
        try:
            text = strip_braces(item)
        except ValueError as error:
            raise TableConfigError(f"{error}: {need}") from None
    key, equals, value = text.partition("=")
    if not equals:
        raise TableConfigError(f"missing '=' after attribute name: {need}")
    return key.strip(" \t\r\n"), value.strip(" \t\r\n")
