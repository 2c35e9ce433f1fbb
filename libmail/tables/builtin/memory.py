"""Tables whose entries live in memory: shared by texthash, inline and internal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from libmail.tables.table import KeyFilter

__all__ = ["MemoryTable"]


class MemoryTable:
    """A fixed-string table over a dictionary whose keys are already folded."""

    pattern = False

    def __init__(self, spec: str, entries: Mapping[str, str], ready: KeyFilter) -> None:
        self.spec = spec
        self._entries = entries
        self._ready = ready

    async def lookup(self, key: str) -> str | None:
        """Return the value of the key, or None."""
        wanted = self._ready(key)
        return None if wanted is None else self._entries.get(wanted)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Give all entries."""
        return iter(self._entries.items())

    def close(self) -> None:
        """Do nothing: nothing is open."""
