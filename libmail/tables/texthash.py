"""texthash:/path - a postmap source, read as a whole when it is opened."""

from __future__ import annotations

from typing import Final

from libmail.log import printable
from libmail.tables.entries import EntryError, parse_entry
from libmail.tables.freshness import read_source
from libmail.tables.lines import logical_lines
from libmail.tables.memory import MemoryTable
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

    Lines that are no entries are left out with a warning; of two entries with the same key the
    first one counts.
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
    if remark:
        options.log.warning(f"{where}: {remark}")
    folded = ready(key) or key
    if folded in entries:
        options.log.warning(f'{where}: duplicate entry: "{key}"')
        return
    entries[folded] = value
