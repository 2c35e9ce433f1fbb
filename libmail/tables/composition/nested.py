"""Tables made of tables: what pipemap and unionmap share."""

from __future__ import annotations

from collections.abc import Sequence

from libmail.tables.braces import split_list, strip_braces
from libmail.tables.registry import open_with
from libmail.tables.table import Table, TableConfigError, TableOptions

__all__ = ["NestedTables", "inner_tables"]


class NestedTables:
    """What tables made of tables have in common."""

    def __init__(self, spec: str, tables: Sequence[Table]) -> None:
        self.spec = spec
        self.pattern = all(table.pattern for table in tables)
        self._tables = tables

    def close(self) -> None:
        """Close the inner tables."""
        for table in self._tables:
            table.close()


def inner_tables(kind: str, name: str, options: TableOptions) -> list[Table]:
    """Open the tables of `kind:{type:name, ...}`; raises `TableConfigError`."""
    problem = f'bad syntax: "{kind}:{name}"; need "{kind}:{{type:name...}}"'
    try:
        specs = split_list(strip_braces(name))
    except ValueError:
        specs = []
    if not specs or not all(":" in spec for spec in specs):
        raise TableConfigError(problem)
    return [open_with(spec, options) for spec in specs]
