"""internal:NAME - a table in the memory of one process, empty at first."""

from __future__ import annotations

from collections.abc import AsyncIterator

from libmail.tables.builtin.memory import MemoryTable
from libmail.tables.table import TableOptions, key_filter

__all__ = ["InternalTable", "open_named", "open_writable"]


class InternalTable(MemoryTable):
    """A dictionary."""

    def __init__(self, spec: str, options: TableOptions) -> None:
        self._kept: dict[str, str] = {}
        super().__init__(spec, self._kept, key_filter(spec, options))

    async def update(self, key: str, value: str) -> None:
        """Set the value of a key."""
        wanted = self._ready(key)
        if wanted:
            self._kept[wanted] = value

    async def delete(self, key: str) -> bool:
        """Remove a key; tell whether it was there."""
        return self._kept.pop(self._ready(key) or "", None) is not None

    async def listing(self) -> AsyncIterator[tuple[str, str]]:
        """Give all entries."""
        for entry in list(self._kept.items()):
            yield entry


def open_named(kind: str, name: str, options: TableOptions) -> InternalTable:
    """Open `internal:name`."""
    return InternalTable(f"{kind}:{name}", options)


def open_writable(kind: str, name: str, options: TableOptions) -> InternalTable:
    """The same."""
    return open_named(kind, name, options)
