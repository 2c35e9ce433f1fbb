"""Cleaning up a cache: a table from which what is stale is removed now and then."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from libmail.tables.table import BulkWritable, WritableTable

__all__ = ["LAST_CLEANUP", "Cleanup", "clean_up", "drop"]

LAST_CLEANUP: Final = "_LAST_CACHE_CLEANUP_COMPLETED_"
"""The key of the entry with the time of the last cleanup, as in Postfix."""

_GROUP: Final = 500  # entries removed at a time


class Cleanup(NamedTuple):
    """Stale entries were removed."""

    table: str
    retained: int
    dropped: int

    def text(self) -> str:
        """`cache lmdb:/var/lib/postfix/c full cleanup: retained=1 dropped=0 entries`."""
        return (
            f"cache {self.table} full cleanup: retained={self.retained} "
            f"dropped={self.dropped} entries"
        )


async def clean_up(table: WritableTable, stale: Callable[[str, str], bool], now: float) -> Cleanup:
    """Remove what is stale, and note the time. stale: by key and value. Raises TableError."""
    found = dropped = 0
    group: list[str] = []
    async for key, value in table.listing():
        if key == LAST_CLEANUP:
            continue
        found += 1
        if stale(key, value):
            group.append(key)
            if len(group) >= _GROUP:
                dropped += await drop(table, group, stale)
                group.clear()
    dropped += await drop(table, group, stale)
    await table.update(LAST_CLEANUP, str(int(now)))
    return Cleanup(table.spec, found - dropped, dropped)


async def drop(table: WritableTable, keys: Sequence[str], stale: Callable[[str, str], bool]) -> int:
    """Remove these entries, as far as they are stale still; count them. Raises TableError.

    Others change the table meanwhile; some tables cannot look again.
    """
    if not isinstance(table, BulkWritable):
        return sum([await table.delete(key) for key in keys])
    groups = [keys[at : at + _GROUP] for at in range(0, len(keys), _GROUP)]
    return sum([await table.delete_many(group, stale) for group in groups])
