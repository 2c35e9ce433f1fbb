"""unionmap:{type:name, ...} - the results of all tables that know the key, with commas."""

from __future__ import annotations

from collections.abc import Sequence

from libmail.tables.nested import inner_tables
from libmail.tables.table import Table, TableOptions

__all__ = ["UnionTable", "open_named"]


class UnionTable:
    """Tables side by side; one that fails makes the whole lookup fail."""

    def __init__(self, spec: str, tables: Sequence[Table]) -> None:
        self.spec = spec
        self.pattern = all(table.pattern for table in tables)
        self._tables = tables

    async def lookup(self, key: str) -> str | None:
        """Return the results joined by ",", or None where no table has one."""
        found = []
        for table in self._tables:
            value = await table.lookup(key)
            if value is not None:
                found.append(value)
        return ",".join(found) if found else None

    def close(self) -> None:
        """Close the inner tables."""
        for table in self._tables:
            table.close()


def open_named(kind: str, name: str, options: TableOptions) -> UnionTable:
    """Open `unionmap:{...}`."""
    return UnionTable(f"{kind}:{name}", inner_tables(kind, name, options))
