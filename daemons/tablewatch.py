"""tablewatch(8): rebuild indexed tables whose sources change, table_auto_rebuild.

called by: master (wake-up), inotify. asks: nobody. writes: indexed tables beside their sources.
tells: nobody; the tables change in place, which their readers see at their next lookup.
needs: root, where the tables belong to root. It takes nothing from anybody but master's wake-up.

master runs it without a line in master.cf. Only sources are read that nobody but root or
mail_owner could have written, what mail_owner could have led astray by a process of his
(libmail.tables.building.upkeep); they are written to the table as one transaction, or not at all.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Final

import pyinotify

from libmail.config import Config, read_master_cf
from libmail.log import LOG
from libmail.privileges import Identity, identity_of
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.building.source import BadSource
from libmail.tables.building.upkeep import KeptTable, kept_tables
from libmail.tables.table import TableError

__all__ = ["SERVICE"]

_SETTLE: Final = 0.2  # seconds after the last change of a source
_EVENTS: Final = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO | pyinotify.IN_Q_OVERFLOW


@dataclass(frozen=True, slots=True)
class Prepared:
    """owner: mail_owner."""

    config: Config
    tables: tuple[KeptTable, ...]
    owner: Identity


def _prepare(startup: Startup) -> Prepared:
    with suppress(ImportError):  # newer versions of lmdb import it when a file is written
        import_module("lmdb._envid")
    config = startup.config
    tables = kept_tables(config, read_master_cf(config.directory))
    return Prepared(config, tables, identity_of(config.text("mail_owner")))


class Keeper:
    """Rebuilds tables.

    A source with a line that is no entry is left alone until it changes.  Every other problem may
    pass while the source stays as it is: then the table is tried again with the next wake-up.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._config = prepared.config
        self._tables = prepared.tables
        self._owner = prepared.owner
        self._bad: dict[KeptTable, tuple[int, ...]] = {}  # the source in which a line is wrong
        self._failed: dict[KeptTable, str] = {}  # to be tried again, and what has been said of it

    def catch_up(self) -> None:
        """Rebuild what is older than its source, and what failed."""
        for table in self._tables:
            self._attempt(table, only_older=table not in self._failed)

    def changed(self, table: KeptTable) -> None:
        """The source was written, or has another file's name."""
        self._attempt(table, only_older=False)

    def _attempt(self, table: KeptTable, *, only_older: bool) -> None:
        config = self._config
        version: tuple[int, ...] = ()
        try:
            if not (table.outdated(config) if only_older else table.differs(config)):
                self._failed.pop(table, None)
                return
            version = _version(table.name)
            if self._bad.get(table) == version:
                return
            path = table.rebuild(config, self._owner)
        except BadSource as error:
            self._failed.pop(table, None)
            self._bad[table] = version
            LOG.warning(f"{error}; keeping the old content of {table.spec}")
        except TableError as error:
            self._fail(table, f"{error}; keeping the old content of {table.spec}")
        except OSError as error:
            self._fail(table, f"{table.name}: {error.strerror}")
        else:
            self._failed.pop(table, None)
            self._bad.pop(table, None)
            LOG.info(f"{path}: rebuilt from {table.name}")

    def _fail(self, table: KeptTable, problem: str) -> None:
        """Say it once, and try again."""
        if self._failed.get(table) != problem:
            LOG.warning(problem)
        self._failed[table] = problem


def _version(path: str) -> tuple[int, ...]:
    """What is another one as soon as the file is: an older copy may take its place."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Watch:
    """Tells a keeper of changes, a moment after they have happened."""

    def __init__(self, tables: Sequence[KeptTable], keeper: Keeper) -> None:
        """Raises OSError where there is no inotify, or no instance of it left."""
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[KeptTable, asyncio.TimerHandle] = {}
        self._by_path: defaultdict[str, set[KeptTable]] = defaultdict(set)
        for table in tables:
            for path in (table.name, os.path.realpath(table.name)):
                self._by_path[path].add(table)
        manager = pyinotify.WatchManager()
        self._notifier = pyinotify.Notifier(manager, self._event, timeout=0)
        for directory in {os.path.dirname(path) for path in self._by_path}:
            manager.add_watch(directory, _EVENTS)
        self._loop.add_reader(manager.get_fd(), self._read)

    def _read(self) -> None:
        self._notifier.read_events()
        self._notifier.process_events()

    def _event(self, event: pyinotify.Event) -> None:
        if event.mask & pyinotify.IN_Q_OVERFLOW:
            self._loop.call_later(_SETTLE, self._keeper.catch_up)
            return
        for table in self._by_path.get(event.pathname, ()):
            waiting = self._waiting.get(table)
            if waiting is not None:
                waiting.cancel()
            self._waiting[table] = self._loop.call_later(
                _SETTLE, partial(self._keeper.changed, table)
            )


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    keeper = Keeper(prepared)
    try:
        Watch(prepared.tables, keeper)
    except OSError as err:
        LOG.warning(f"cannot watch tables, looking every minute: {err.strerror}")

    async def serve(connection: Connection) -> None:
        while True:
            await connection.receive()  # a wake-up
            keeper.catch_up()

    keeper.catch_up()
    return Handlers(stream=exchanges(runtime, serve))


SERVICE: Final = Service("tablewatch", _prepare, _start, permanent=True)
