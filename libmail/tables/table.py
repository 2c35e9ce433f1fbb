"""What a lookup table is: its interface, its errors, and how keys are made ready.

`None` means "the table says that there is no such key"; "could not look" is always an exception,
so that a failing table never reads as "no such user".  Tables that work inside the process
complete without suspending: a command-line tool drives them with `lookup_now`, a daemon awaits
them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from libmail.config.core import Config
from libmail.config.errors import ConfigError
from libmail.log import LOG, printable

__all__ = [
    "BulkTable",
    "Duplicates",
    "KeyFilter",
    "Log",
    "SequenceTable",
    "Table",
    "TableConfigError",
    "TableError",
    "TableFailed",
    "TableOptions",
    "TableRetry",
    "TableUnsupported",
    "WritableTable",
    "fold_ascii",
    "is_utf8",
    "key_filter",
    "lookup_now",
    "refuse_sensitive",
    "run_now",
    "usable_value",
]

R = TypeVar("R")
Duplicates: TypeAlias = Literal["error", "warn", "ignore", "replace"]


class TableError(Exception):
    """A table gave no answer.  `str()` is one line, fit for the log."""


class TableRetry(TableError):
    """The answer cannot be known now; a later attempt may succeed (4.3.0).

    title: the parameter that names the table, "" where that is not known.
    """

    def __init__(self, text: str, title: str = "") -> None:
        super().__init__(text)
        self.title = title


class TableFailed(TableRetry):
    """The table was asked and cannot tell."""

    def __init__(self, spec: str, reason: str) -> None:
        super().__init__(f"table {spec} lookup error: {reason}")
        self.reason = reason


class TableConfigError(TableError, ConfigError):
    """The table cannot be used: unknown type, bad syntax, or it cannot be opened."""


class TableUnsupported(TableError):
    """The table type does not offer this operation (listing, deletion, creation)."""


class Log(Protocol):
    """Where tables report problems; `libmail.log.LOG` is one."""

    def warning(self, text: str, /) -> object:
        """Log one line of severity warning."""

    def error(self, text: str, /) -> object:
        """Log one line of severity error."""


class Table(Protocol):
    """One open lookup table."""

    @property
    def spec(self) -> str:
        """The table as configured: "lmdb:/etc/postfix/virtual"."""

    @property
    def pattern(self) -> bool:
        """True: decides on whole keys (regexp, cidr, static), is not asked for partial keys."""

    async def lookup(self, key: str) -> str | None:
        """Return the value, or None where the table has no such key.

        Raises `TableRetry` when the answer cannot be known now.
        """

    def close(self) -> None:
        """Give back what the table holds; it is not used any more."""


@runtime_checkable
class SequenceTable(Protocol):
    """A table whose entries can be listed (postmap -s)."""

    def entries(self) -> Iterator[tuple[str, str]]:
        """Give all entries, in the table's own order."""


class WritableTable(Table, Protocol):
    """A table that a daemon changes entry by entry: a cache, and what proxywrite serves."""

    async def update(self, key: str, value: str) -> None:
        """Set the value of a key. Raises `TableRetry`."""

    async def delete(self, key: str) -> bool:
        """Remove a key; tell whether it was there. Raises `TableRetry`."""

    def listing(self) -> AsyncIterator[tuple[str, str]]:
        """Give all entries, while others may be changed. Raises `TableRetry`."""


_DEFAULTS: Final = Config("")


@runtime_checkable
class BulkWritable(Protocol):
    """A table in which many entries are changed at less cost than one by one."""

    async def update_many(self, entries: Mapping[str, str]) -> Sequence[str]:
        """Set the values of keys; returns those that cannot be stored.

        Raises `TableRetry`, and nothing is changed.
        """

    async def delete_many(self, keys: Sequence[str], stale: Callable[[str, str], bool]) -> int:
        """Remove those that are stale still, key and value; count them. Raises `TableRetry`."""


@runtime_checkable
class BulkTable(Protocol):
    """A table that answers many keys at less cost than one by one."""

    def lookup_many(self, keys: Sequence[str]) -> list[str | None]:
        """As `Table.lookup` for each key."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How a table is opened.

    fold: keys of tables with fixed strings are compared without regard to case.
    utf8: keys and values must be valid UTF-8 (smtputf8_enable = yes).
    strict: a table that cannot be opened raises `TableConfigError` (commands, and daemons with
        daemon_table_open_error_is_fatal); otherwise the error is logged and every lookup raises
        `TableRetry`.
    map_size: initial size limit of an LMDB table in bytes (lmdb_map_size).
    duplicates: of a key in a source that is read at once (texthash): "error" makes the table
        unusable; "warn" keeps the first entry, "ignore" does so silently, "replace" keeps the last.
    files: where the right sides of entries are names of files, what gives the value that they stand
        for; raises `EntryError`. See `libmail.tables.file_values`.
    config: main.cf, for what table types read there; by default all parameters have defaults.
    sensitive: values name users, files or commands. So tables are refused whose answers nobody
        vouches for (tcp, socketmap, memcache), and one behind `proxy:` is opened directly.
    literal: results of patterns may not have text of the key (`$1`), as with sensitive ones: who
        writes an address must not choose a transport or a host.
    """

    fold: bool = True
    utf8: bool = True
    strict: bool = False
    map_size: int = 16777216
    log: Log = LOG
    config: Config = _DEFAULTS
    sensitive: bool = False
    literal: bool = False
    duplicates: Duplicates = "error"
    files: Callable[[str], str] | None = None

    @classmethod
    def of(cls, config: Config, *, sensitive: bool = False) -> TableOptions:
        """How a daemon with this configuration opens tables."""
        return cls(
            utf8=config.bool("smtputf8_enable"),
            strict=config.bool("daemon_table_open_error_is_fatal"),
            config=config,
            sensitive=sensitive,
        )


KeyFilter = Callable[[str], str | None]

_MALFORMED: Final = "malformed UTF-8 or invalid codepoint"
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def is_utf8(text: str) -> bool:
    """Tell whether the text came from valid UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a byte that is not UTF-8 is a lone surrogate in our text
        return False
    return True


def fold_ascii(text: str) -> str:
    """Fold the letters A to Z only."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def key_filter(spec: str, options: TableOptions, *, pattern: bool = False) -> KeyFilter:
    """Return the function that makes a key ready for the table.

    It folds the key (tables of fixed strings), and answers None for a key that is not UTF-8 and
    so cannot be in the table, with a warning.
    """
    fold = options.fold and not pattern

    def only_utf8(key: str) -> str | None:
        if key.isascii():
            return key.lower() if fold else key
        if is_utf8(key):
            return key.casefold() if fold else key
        options.log.warning(f'{spec}: non-UTF-8 key "{printable(key)}": {_MALFORMED}')
        return None

    if options.utf8:
        return only_utf8
    return fold_ascii if fold else str


def refuse_sensitive(spec: str, options: TableOptions) -> None:
    """Raises TableConfigError where nobody vouches for the table's answers, and somebody must."""
    if options.sensitive:
        raise TableConfigError(f"{spec} map is not allowed for security-sensitive data")


def usable_value(spec: str, key: str, value: str, options: TableOptions) -> str:
    """Return the value if it may be used; raises `TableRetry` for text that is not UTF-8."""
    if options.utf8 and not is_utf8(value):
        shown = printable(value)
        problem = f'key "{printable(key)}": non-UTF-8 value "{shown}": {_MALFORMED}'
        options.log.warning(f"{spec}: {problem}")
        raise TableFailed(spec, problem)
    return value


def run_now(attempt: Coroutine[object, object, R]) -> R:
    """Run what only asks in-process tables, without an event loop (for command-line tools).

    Raises TableError when it would have to wait.
    """
    try:
        attempt.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    attempt.close()
    raise TableError("a table of this type needs an event loop")


def lookup_now(table: Table, key: str) -> str | None:
    """Look up in an in-process table without an event loop."""
    return run_now(table.lookup(key))
