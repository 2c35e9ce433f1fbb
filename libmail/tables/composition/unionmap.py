"""unionmap:{type:name, ...} - the results of all tables that know the key, with commas."""

from __future__ import annotations

from libmail.tables.composition.nested import NestedTables, inner_tables
from libmail.tables.table import TableOptions

__all__ = ["UnionTable", "open_named"]


class UnionTable(NestedTables):
    """Tables side by side; one that fails makes the whole lookup fail."""

    async def lookup(self, key: str) -> str | None:
        """Return the results joined by ",", or None where no table has one."""
        found = []
        for table in self._tables:
            value = await table.lookup(key)
            if value is not None:
                found.append(value)
        return ",".join(found) if found else None


def open_named(kind: str, name: str, options: TableOptions) -> UnionTable:
    """Open `unionmap:{...}`."""
    return UnionTable(f"{kind}:{name}", inner_tables(kind, name, options))
