"""Tables made of tables: the list of inner tables of pipemap and unionmap."""

from __future__ import annotations

from libmail.tables.braces import split_list, strip_braces
from libmail.tables.registry import open_with
from libmail.tables.table import Table, TableConfigError, TableOptions

__all__ = ["inner_tables"]


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
