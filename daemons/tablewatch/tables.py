"""Indexed tables that are made anew when their sources change."""

from __future__ import annotations

import os
from collections.abc import Sequence

from libmail.config import Config
from libmail.log import LOG
from libmail.privileges import Identity
from libmail.tables.building.source import BadSource
from libmail.tables.building.upkeep import KeptTable, Value
from libmail.tables.table import TableError

__all__ = ["TableKeeper"]


class TableKeeper:
    """Rebuilds tables.

    A source with a line that is no entry is left alone until it changes.  Every other problem may
    pass while the source stays as it is: then the table is tried again with the next wake-up.
    """

    def __init__(
        self, config: Config, tables: Sequence[KeptTable], owner: Identity, value: Value
    ) -> None:
        """owner: mail_owner. value: what names of files stand for; raises EntryError."""
        self._config = config
        self._tables = tables
        self._owner = owner
        self._value = value
        self._bad: dict[KeptTable, tuple[int, ...]] = {}  # the source in which a line is wrong
        self._failed: dict[KeptTable, str] = {}  # to be tried again, and what has been said of it

    def catch_up(self) -> None:
        """Rebuild what is older than its source, and what failed."""
        for table in self._tables:
            self._attempt(table, only_older=table not in self._failed)

    def changed(self, table: KeptTable) -> None:
        """The source was written, or has another file's name."""
        self._attempt(table, only_older=False)

    def files_changed(self) -> None:
        """Rebuild what has contents of files, some of which are others now."""
        for table in self._tables:
            if table.files and os.path.exists(table.name):
                self._rebuild(table)

    def _attempt(self, table: KeptTable, *, only_older: bool) -> None:
        config = self._config
        try:
            if not (table.outdated(config) if only_older else table.differs(config)):
                self._failed.pop(table, None)
                return
            if self._bad.get(table) == _version(table.name):
                return
        except TableError as error:
            self._fail(table, f"{error}; keeping the old content of {table.spec}")
        except OSError as error:
            self._fail(table, f"{table.name}: {error.strerror}")
        else:
            self._rebuild(table)

    def _rebuild(self, table: KeptTable) -> None:
        version: tuple[int, ...] = ()
        try:
            version = _version(table.name)
            path = table.rebuild(self._config, self._owner, self._value)
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
