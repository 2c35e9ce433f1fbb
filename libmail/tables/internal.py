"""internal:NAME - a table in the memory of one process, empty at first."""

from __future__ import annotations

from libmail.tables.memory import MemoryTable
from libmail.tables.table import TableOptions, key_filter

__all__ = ["open_named"]


def open_named(kind: str, name: str, options: TableOptions) -> MemoryTable:
    """Open `internal:name`."""
    spec = f"{kind}:{name}"
    return MemoryTable(spec, {}, key_filter(spec, options))
