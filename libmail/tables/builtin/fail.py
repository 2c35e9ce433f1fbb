"""fail:NAME - a table that fails every request, for tests of error handling."""

from __future__ import annotations

from libmail.tables.table import TableFailed, TableOptions

__all__ = ["FailingTable", "open_named"]


class FailingTable:
    """A table without answers."""

    pattern = False

    def __init__(self, spec: str) -> None:
        self.spec = spec

    async def lookup(self, key: str) -> str | None:
        """Raise `TableRetry`, whatever the key."""
        raise TableFailed(self.spec, "Application error")

    def close(self) -> None:
        """Do nothing: nothing is open."""


def open_named(kind: str, name: str, options: TableOptions) -> FailingTable:
    """Open `fail:name`."""
    return FailingTable(f"{kind}:{name}")
