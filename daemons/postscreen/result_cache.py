"""The cache of test results, postscreen_cache_map, and its cleanup."""

import asyncio
import time
from typing import Final

from daemons.postscreen.screen_tests import Record, read_record
from libmail.log import LOG
from libmail.tables.expiry import LAST_CLEANUP, clean_up
from libmail.tables.table import TableError, TableUnsupported, WritableTable

__all__ = ["ResultCache"]

_SOON: Final = 60.0  # seconds between checks whether a cleanup is due


class ResultCache:
    """The cache. If the table fails that is logged, and clients are treated as new."""

    def __init__(self, table: WritableTable | None, interval: float, retention: float) -> None:
        """table: None for no cache. interval: seconds between cleanups, 0 for none. retention:
        seconds for which expired entries are kept."""
        self._table = table
        self._interval = interval
        self._retention = retention

    async def lookup(self, address: str) -> Record:
        """The record of a client."""
        if self._table is None:
            return Record()
        try:
            entry = await self._table.lookup(address)
        except TableError as error:
            LOG.seldom("postscreen_cache_map", f": lookup: {error}")
            return Record()
        return Record() if entry is None else read_record(entry)

    async def store(self, address: str, record: Record) -> None:
        """Store the record of a client."""
        if self._table is None:
            return
        try:
            await self._table.update(address, record.text())
        except TableError as error:
            LOG.seldom("postscreen_cache_map", f": update: {error}")

    async def clean_up_forever(self) -> None:
        """Clean up once in an interval, counted across restarts, if the table supports that."""
        table = self._table
        if table is None or not self._interval:
            return
        while True:
            try:
                if await self._is_time(table):
                    await self.clean_up(table)
            except TableUnsupported:
                return  # a shared table is cleaned up by the program that has it open
            except TableError as error:
                LOG.seldom("postscreen_cache_map", f": cleanup: {error}")
            await asyncio.sleep(min(self._interval, _SOON))

    async def _is_time(self, table: WritableTable) -> bool:
        last = await table.lookup(LAST_CLEANUP)
        when = int(last) if last and last.isascii() and last.isdigit() and len(last) < 20 else 0
        return not 0 <= time.time() - when < self._interval

    async def clean_up(self, table: WritableTable) -> None:
        """Remove entries whose retention time is over. Raises TableError."""
        now = time.time()

        def stale(_: str, entry: str) -> bool:
            return read_record(entry).stale(self._retention, now)

        LOG.event(await clean_up(table, stale, now))
