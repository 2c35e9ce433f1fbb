"""Sources of tables: how a program reads them, and what becomes of their lines.

postmap and postalias differ in how a line of the source becomes an entry, and in what stands
between key and value in their output.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from libmail.log import LOG, printable
from libmail.tables.disk.lmdb_file import to_bytes
from libmail.tables.entries import EntryError, plain_entries
from libmail.tables.lines import logical_lines
from libmail.tables.table import TableError, TableOptions, fold_ascii, is_utf8

__all__ = [
    "BadSource",
    "Dialect",
    "Target",
    "folded",
    "read_entries",
    "read_source",
    "stored_form",
]

_MOST_AT_ONCE: Final = 1 << 29  # octets of a source
_NO_MAP: Final[Mapping[str, str]] = {}


class BadSource(TableError):
    """A line of a source is no entry: "FILE, line N: why"."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a program reads its sources.

    parse: a logical line to key, value and a remark for the log ("" for none); raises
    `EntryError`.  separator: between key and value in the output.  fixed: entries of every table
    whose keys and values have no null byte.  plain: sources that have nothing odd may be read by
    `plain_entries`.
    """

    parse: Callable[[str], tuple[str, str, str]]
    separator: str
    fixed: Callable[[], Mapping[str, str]] = field(default=lambda: _NO_MAP)
    always: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A table, and how the command line asks to treat it.

    null: keys and values end in a null byte (-N, and the default).  duplicates: "warn" keeps the
    first entry of a key, "ignore" (-w) does so silently, "replace" (-r) keeps the last one.
    source_rights: the new file gets the rights of its source (no -p), and is written as its owner
    (no -o).  convert: changes a value on its way into the table (-F).  whole: a line that is no
    entry is an error, `BadSource`, instead of being left out.
    """

    kind: str
    name: str
    options: TableOptions
    null: bool = True
    duplicates: str = "warn"
    source_mode: bool = True
    source_owner: bool = True
    convert: Callable[[str], str] | None = None
    whole: bool = False

    @property
    def spec(self) -> str:
        """The table as "type:name"."""
        return f"{self.kind}:{self.name}"


def read_entries(
    target: Target, dialect: Dialect, source: str, lines: Iterable[str]
) -> dict[str, str]:
    """Read a source into folded keys and values, with the warnings that are due."""
    options = target.options
    entries: dict[str, str] = {}
    for number, line in logical_lines(lines, lambda text: _leave_out(target, f"{source}: {text}")):
        if options.utf8 and not is_utf8(line):
            shown = printable(line.strip())
            problem = f'non-UTF-8 input "{shown}" -- ignoring this line'
            _leave_out(target, f"{source}, line {number}: {problem}")
            continue
        try:
            key, value, remark = dialect.parse(line)
        except EntryError as error:
            _leave_out(target, f"{source}, line {number}: {error}")
            continue
        try:
            value = value if target.convert is None else target.convert(value)
        except EntryError as error:
            _leave_out(target, f"{source}, line {number}: {error}: skipping this entry")
            continue
        if remark:
            LOG.warning(f"{source}, line {number}: {remark}")
        if options.fold:
            key = key.lower() if key.isascii() else folded(key, options)
        if key in entries:
            if target.duplicates == "warn":
                LOG.warning(f'{target.spec}: duplicate entry: "{key}"')
            if target.duplicates != "replace":
                continue
        entries[key] = value
    return entries


def _leave_out(target: Target, problem: str) -> None:
    if target.whole:
        raise BadSource(problem.removesuffix(" -- ignoring this line"))
    LOG.warning(problem)


def folded(key: str, options: TableOptions) -> str:
    """The key as it is compared."""
    return key.casefold() if options.utf8 else fold_ascii(key)


def stored_form(target: Target, dialect: Dialect, entries: Mapping[str, str]) -> dict[bytes, bytes]:
    """Convert entries to what the file holds."""
    end = b"\0" if target.null else b""
    stored = {to_bytes(key) + end: to_bytes(value) + end for key, value in entries.items()}
    for key, value in dialect.always.items():
        stored.setdefault(to_bytes(key) + end, to_bytes(value) + end)
    stored.update({to_bytes(key): to_bytes(value) for key, value in dialect.fixed().items()})
    return stored


def read_source(target: Target, dialect: Dialect, source: BinaryIO) -> Mapping[bytes, bytes]:
    """What the table will hold.  Raises `TableError`."""
    try:
        if dialect.plain and target.convert is None:
            data = source.read(_MOST_AT_ONCE)
            end = b"\0" if target.null else b""
            if len(data) < _MOST_AT_ONCE:
                plain = plain_entries(data, fold=target.options.fold, end=end)
                if plain is not None:
                    return plain
                source = io.BytesIO(data)
            else:
                source.seek(0)
        lines = io.TextIOWrapper(source, "utf-8", "surrogateescape", newline="\n")
        entries = read_entries(target, dialect, target.name, lines)
        lines.detach()
        return stored_form(target, dialect, entries)
    except OSError as error:
        raise TableError(f"read {target.name}: {error.strerror}") from error
