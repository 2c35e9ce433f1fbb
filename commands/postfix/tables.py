"""postfix check: every table that the configuration names can be opened.

A table that cannot is no error for the daemons: mail that needs it waits. So it is told here, with
the place of the setting, and so is what the table's own driver warns of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.tables.building.caches import cache_names
from libmail.tables.registry import TABLE_TYPES, open_with
from libmail.tables.table import TableConfigError, TableOptions

__all__ = ["NamedTable", "named_tables", "table_problems"]

_TYPES = "|".join(sorted(TABLE_TYPES.keys() - {"unix"}))
# The name ends where a list goes on; a body in braces has no braces inside but in pairs.
_TABLE = re.compile(
    rf"(?<![\w:-])(?:proxy:)?((?:{_TYPES}):(?:\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|[^\s,{{}}]+)"
    r"|unix:(?:passwd|group)\.byname)"
)


@dataclass(frozen=True, slots=True)
class NamedTable:
    """place: "main.cf, line 7" and the parameter. spec: without `proxy:`."""

    place: str
    spec: str


@dataclass(slots=True)
class _Collected:
    """What a driver says while a table opens."""

    lines: list[str] = field(default_factory=list)

    def warning(self, text: str, /) -> None:
        self.lines.append(text)

    error = warning


def named_tables(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[NamedTable]:
    """The tables in the settings of main.cf and of the options in master.cf, but for caches."""
    caches = cache_names(config, entries)
    found = _all_named(config, entries)
    yield from (one for one in found if one.spec.partition(":")[2] not in caches)


def _all_named(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[NamedTable]:
    for name in config.names():
        file, line = config.origin(name) or ("", 0)
        yield from _in_value(config, name, config.raw(name) or "", f"{file}, line {line}")
    for entry in entries:
        for name, text in entry.overrides:
            yield from _in_value(config, name, text, f"{entry.file}, line {entry.line}")


def _in_value(config: Config, name: str, text: str, place: str) -> Iterator[NamedTable]:
    try:
        value = config.expand(text)
    except ConfigError:
        return  # whoever reads it complains
    for spec in _TABLE.findall(value):
        yield NamedTable(f"{place}: {name}", spec)


def table_problems(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[str]:
    """A line for each table that cannot be used, and for each line of one that is left out."""
    seen: set[str] = set()
    open_to_all = config.text("data_directory").rstrip("/") + "/"
    for table in named_tables(config, entries):
        if table.spec in seen:
            continue
        seen.add(table.spec)
        if open_to_all in table.spec:
            yield (
                f"{table.place}: {table.spec} is in data_directory, where every service may write: "
                "whoever breaks into one decides what this table says"
            )
        said = _Collected()
        options = TableOptions(
            strict=True, utf8=config.bool("smtputf8_enable"), config=config, log=said
        )
        try:
            open_with(table.spec, options).close()
        except TableConfigError as err:
            said.warning(str(err))
        for text in said.lines:
            yield f"{table.place}: {text}"
