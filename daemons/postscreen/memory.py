"""What is remembered of clients that were here: postscreen_cache_map, and how it is tidied."""

import asyncio
import time
from typing import Final, NamedTuple

from daemons.postscreen.trials import Record, read_record
from libmail.log import LOG
from libmail.tables.table import TableError, TableUnsupported, WritableTable

__all__ = ["Memory"]

_CLEANED: Final = "_LAST_CACHE_CLEANUP_COMPLETED_"
"""The entry that says when that was, as in Postfix."""

_SOON: Final = 60.0  # seconds between looks whether it is time


class Cleanup(NamedTuple):
    """The cache was tidied up."""

    table: str
    retained: int
    dropped: int

    def text(self) -> str:
        """`cache lmdb:/var/lib/postfix/c full cleanup: retained=1 dropped=0 entries`."""
        return (
            f"cache {self.table} full cleanup: retained={self.retained} "
            f"dropped={self.dropped} entries"
        )


class Memory:
    """table: None where nothing is kept. interval: between clean-ups, 0 for none. retention: how
    long an entry is kept that has expired; both in seconds. A table that fails is a warning, and
    clients are new."""

    def __init__(self, table: WritableTable | None, interval: float, retention: float) -> None:
        self._table = table
        self._interval = interval
        self._retention = retention

    async def recall(self, address: str) -> Record:
        """What is known of a client."""
        if self._table is None:
            return Record()
        try:
            entry = await self._table.lookup(address)
        except TableError as error:
            LOG.seldom("postscreen_cache_map", f": lookup: {error}")
            return Record()
        return Record() if entry is None else read_record(entry)

    async def keep(self, address: str, record: Record) -> None:
        """Remember a client."""
        if self._table is None:
            return
        try:
            await self._table.update(address, record.text())
        except TableError as error:
            LOG.seldom("postscreen_cache_map", f": update: {error}")

    async def tidy_for_ever(self) -> None:
        """Tidy up once in an interval, which goes on over restarts, if the table can do that."""
        table = self._table
        if table is None or not self._interval:
            return
        while True:
            try:
                if await self._is_time(table):
                    await self.tidy(table)
            except TableUnsupported:
                return  # who has the table looks after it
            except TableError as error:
                LOG.seldom("postscreen_cache_map", f": cleanup: {error}")
            await asyncio.sleep(min(self._interval, _SOON))

    async def _is_time(self, table: WritableTable) -> bool:
        last = await table.lookup(_CLEANED)
        when = int(last) if last and last.isascii() and last.isdigit() and len(last) < 20 else 0
        return not 0 <= time.time() - when < self._interval

    async def tidy(self, table: WritableTable) -> None:
        """Remove what has expired long ago. Raises TableError."""
        now = time.time()
        dropped = retained = 0
        async for key, entry in table.listing():
            if key == _CLEANED:
                continue
            if read_record(entry).stale(self._retention, now):
                await table.delete(key)
                dropped += 1
            else:
                retained += 1
        await table.update(_CLEANED, str(int(now)))
        LOG.event(Cleanup(table.spec, retained, dropped))
