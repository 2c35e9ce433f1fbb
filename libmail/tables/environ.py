"""environ:NAME - the environment of the process, by the name of the variable."""

from __future__ import annotations

import os

from libmail.tables.memory import MemoryTable
from libmail.tables.table import TableOptions, key_filter

__all__ = ["open_named"]


def open_named(kind: str, name: str, options: TableOptions) -> MemoryTable:
    """Open `environ:name`; the name has no meaning."""
    spec = f"{kind}:{name}"
    return MemoryTable(spec, os.environ, key_filter(spec, options))
