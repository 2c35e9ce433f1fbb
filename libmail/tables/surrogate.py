"""The stand-in for a table that could not be opened: every lookup is a temporary error."""

from __future__ import annotations

from collections.abc import AsyncIterator

from libmail.tables.table import Log, TableFailed, TableRetry

__all__ = ["UnavailableTable"]


class UnavailableTable:
    """A table that cannot be used.  The daemon lives on: other mail may not need the table."""

    pattern = False

    def __init__(self, spec: str, reason: str, log: Log) -> None:
        self.spec = spec
        self._reason = reason
        self._log = log

    async def lookup(self, key: str) -> str | None:
        """Raise `TableRetry`, whatever the key."""
        raise self._failure()

    async def update(self, key: str, value: str) -> None:
        """Likewise."""
        raise self._failure()

    async def delete(self, key: str) -> bool:
        """Likewise."""
        raise self._failure()

    def listing(self) -> AsyncIterator[tuple[str, str]]:
        """Likewise."""
        raise self._failure()

    def _failure(self) -> TableRetry:
        self._log.warning(f"{self.spec} is unavailable. {self._reason}")
        return TableFailed(self.spec, self._reason)

    def close(self) -> None:
        """Do nothing: nothing is open."""
