"""pipemap:{type:name, ...} - the result of each table is the key for the next."""

from __future__ import annotations

from libmail.tables.composition.nested import NestedTables, inner_tables
from libmail.tables.table import TableOptions

__all__ = ["PipeTable", "open_named"]


class PipeTable(NestedTables):
    """Tables in a row; the search ends without result where one of them has none."""

    async def lookup(self, key: str) -> str | None:
        """Return the result of the last table, or None."""
        current = key
        for table in self._tables:
            value = await table.lookup(current)
            if value is None:
                return None
            current = value
        return current


def open_named(kind: str, name: str, options: TableOptions) -> PipeTable:
    """Open `pipemap:{...}`."""
    return PipeTable(f"{kind}:{name}", inner_tables(kind, name, options))
