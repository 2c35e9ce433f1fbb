"""texthash:/path - a postmap source, read as a whole when it is opened."""

from __future__ import annotations

from typing import Final

from libmail.files.freshness import read_source
from libmail.log import printable
from libmail.tables.builtin.memory import MemoryTable
from libmail.tables.entries import EntryError, parse_entry
from libmail.tables.file_values import value_of
from libmail.tables.lines import logical_lines
from libmail.tables.table import (
    KeyFilter,
    TableConfigError,
    TableOptions,
    is_utf8,
    key_filter,
)

__all__ = ["open_named"]

_IGNORED: Final = " -- ignoring this line"


def open_named(kind: str, name: str, options: TableOptions) -> MemoryTable:
    """Open `texthash:name`; raises `TableConfigError`.

    Lines that are no entries are left out with a warning.
    """
    ready = key_filter(f"{kind}:{name}", options)
    entries: dict[str, str] = {}
    try:
        with read_source(name) as file:
            for number, line in logical_lines(
                file, lambda problem: options.log.warning(f"{name}: {problem}")
            ):
                _add(entries, f"{name}, line {number}", line, ready, options)
    except OSError as error:
        raise TableConfigError(f"open database {name}: {error.strerror}") from error
    return MemoryTable(f"{kind}:{name}", entries, ready)


def _add(
    entries: dict[str, str], where: str, line: str, ready: KeyFilter, options: TableOptions
) -> None:
    if options.utf8 and not is_utf8(line):
        shown = printable(line)
        options.log.warning(f'{where}: non-UTF-8 input "{shown}" -- ignoring this line')
        return
    try:
        key, value, remark = parse_entry(line)
    except EntryError as error:
        options.log.warning(f"{where}: {str(error).removesuffix(_IGNORED)}{_IGNORED}")
        return
    try:
        value = value_of(value, options)
    except EntryError as error:
        options.log.warning(f"{where}: {error}: skipping this entry")
        return
    if remark:
        options.log.warning(f"{where}: {remark}")
    folded = ready(key) or key
    if folded in entries and not _replaces(f'{where}: duplicate entry: "{key}"', options):
        return
    entries[folded] = value


def _replaces(problem: str, options: TableOptions) -> bool:
    """Whether a later entry counts. Raises TableConfigError."""
    if options.duplicates == "error":
        raise TableConfigError(problem)
    if options.duplicates == "warn":
        options.log.warning(problem)
    return options.duplicates == "replace"
