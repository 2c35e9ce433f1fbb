"""The results that verify(8) has: in the table, on their way to it, and those that are told once.

Nobody waits for the disk but whoever asks for what is only there. A new result is known at once,
and written with all that have come meanwhile, in one transaction: with one for each the disk says
how many addresses are verified in a second. A result that is lost in a crash is found again.

All of it is bounded: the table by `_MOST_ENTRIES`, what is to be written by `_MOST_UNWRITTEN`, what
is told once by the number of probes.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from daemons.verify.entry import Entry
from libmail.log import LOG
from libmail.tables.expiry import LAST_CLEANUP, clean_up
from libmail.tables.table import (
    BulkWritable,
    TableError,
    TableUnsupported,
    WritableTable,
)

__all__ = ["Results"]

_MOST_ENTRIES: Final = 500_000  # results in the table; further ones are told, but not kept
_MOST_UNWRITTEN: Final = 10_000


class Results:
    """Results by address. over: whether an entry is too old, now (of the epoch)."""

    def __init__(
        self, table: WritableTable, over: Callable[[Entry, float], bool], most_once: int
    ) -> None:
        """most_once: results that are told once."""
        self._table = table
        self._over = over
        self._most_once = most_once
        self._once: dict[str, Entry] = {}
        self._unwritten: dict[str, Entry] = {}
        self._added: set[str] = set()  # of them, those that are not in the table
        self._writing: asyncio.Task[None] | None = None
        self.entries = 0  # in the table, about

    async def find(self, address: str) -> Entry | None:
        """What is known, None also while the table does not answer."""
        return self._once.pop(address, None) or await self.kept(address)

    async def kept(self, address: str) -> Entry | None:
        """As `find`, of what is not only told once."""
        found = self._unwritten.get(address)
        if found is not None:
            return found
        try:
            found = Entry.parse(await self._table.lookup(address))
        except TableError as error:
            LOG.seldom(f"{self._table.spec}", f": lookup: {error}")
        return self._unwritten.get(address, found)  # what came meanwhile is newer

    async def keep(self, address: str, entry: Entry, *, new: bool) -> bool:
        """Keep a result; it is written soon. new: none stands in the table. False: no room."""
        if new and self.entries >= _MOST_ENTRIES:
            return False
        while len(self._unwritten) >= _MOST_UNWRITTEN:
            await self.written()
        if new and address not in self._unwritten:
            self.entries += 1
            self._added.add(address)
        self._unwritten[address] = entry
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        return True

    def tell_once(self, address: str, entry: Entry) -> None:
        """Keep a result for whoever asks next, and for nobody else."""
        self._once[address] = entry
        while len(self._once) > self._most_once:
            del self._once[next(iter(self._once))]

    async def _write(self) -> None:
        try:
            while self._unwritten:
                some = dict(self._unwritten)
                failed = await self._write_some(some)
                for address, entry in some.items():
                    if self._unwritten[address] is entry:
                        del self._unwritten[address]
                    if address in failed:
                        self.entries -= address in self._added
                        self.tell_once(address, entry)
                    self._added.discard(address)
        finally:
            self._writing = None

    async def _write_some(self, some: dict[str, Entry]) -> Collection[str]:
        """Write these; returns those that could not be written."""
        values = {address: entry.value() for address, entry in some.items()}
        left = dict.fromkeys(values)
        try:
            if isinstance(self._table, BulkWritable):
                return await self._table.update_many(values)
            for address, value in values.items():
                await self._table.update(address, value)
                del left[address]
        except TableError as error:
            LOG.seldom(f"{self._table.spec}", f": update: {error}")
        return left

    async def written(self) -> None:
        """Wait until all that is known now is in the table, or failed to get there."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    # what has expired

    async def tidy_for_ever(self, interval: float, now: Callable[[], float]) -> None:
        """Drop what has expired, each `interval` seconds; 0 for never."""
        with suppress(TableError):  # a shared table is bounded by who has it
            async for _ in self._table.listing():
                self.entries += 1
        while interval:
            with suppress(TableError):
                last = await self._table.lookup(LAST_CLEANUP) or ""
                done = int(last) if last.isascii() and last.isdigit() and len(last) < 20 else 0
                left = min(interval, max(0.0, done + interval - now()))
                await asyncio.sleep(left)
            try:
                await self._tidy(now())
            except TableUnsupported:
                return  # who has the table looks after it
            except TableError as error:
                LOG.warning(f"cache {self._table.spec} cleanup: {error}")
                await asyncio.sleep(interval)

    async def _tidy(self, now: float) -> None:
        """Raises TableError."""

        def stale(_: str, value: str) -> bool:
            entry = Entry.parse(value)
            return entry is None or self._over(entry, now)

        await self.written()
        cleanup = await clean_up(self._table, stale, now)
        self.entries = cleanup.retained + len(self._unwritten)
        LOG.event(cleanup)
