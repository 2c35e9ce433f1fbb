"""debug:type:name - logs every request to the table behind it, and its answer."""

from __future__ import annotations

from libmail.log import LOG
from libmail.tables.registry import open_with
from libmail.tables.table import Table, TableError, TableOptions

__all__ = ["DebugTable", "open_named"]


class DebugTable:
    """A table that writes down what it is asked."""

    def __init__(self, table: Table) -> None:
        self.spec = f"debug:{table.spec}"
        self.pattern = table.pattern
        self._table = table

    async def lookup(self, key: str) -> str | None:
        """Return what the inner table says."""
        try:
            value = await self._table.lookup(key)
        except TableError as error:
            LOG.info(f'{self._table.spec} lookup: "{key}" = "error": {error}')
            raise
        answer = "not found" if value is None else value
        LOG.info(f'{self._table.spec} lookup: "{key}" = "{answer}"')
        return value

    def close(self) -> None:
        """Close the inner table."""
        LOG.info(f"{self._table.spec} close")
        self._table.close()


def open_named(kind: str, name: str, options: TableOptions) -> DebugTable:
    """Open `debug:type:name`."""
    return DebugTable(open_with(name, options))
