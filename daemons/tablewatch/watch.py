"""Notices by inotify(7) that files have changed."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import pyinotify

from daemons.tablewatch.tables import TableKeeper
from libmail.tables.building.upkeep import KeptTable

__all__ = ["Watch"]

_SETTLE: Final = 0.2  # seconds after a change
_WRITTEN: Final = 2.0  # seconds until everything is there that is written together
_EVENTS: Final = pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO | pyinotify.IN_Q_OVERFLOW
_LINKS_TOO: Final = _EVENTS | pyinotify.IN_CREATE
_MOST_LINKS: Final = 40


class Watch:
    """Tells of changes, a moment after they have happened.

    Of tables by name.  Certificates are reached by links of links, and several files make one: so
    they are looked at after any change in a directory on the way.
    """

    def __init__(
        self,
        tables: Sequence[KeptTable],
        keeper: TableKeeper,
        look: Callable[..., None],
        catch_up: Callable[[], None],
    ) -> None:
        """look(settled=): at certificates. catch_up: at everything. Raises OSError where there is
        no inotify, or no instance of it left."""
        self._keeper = keeper
        self._look = look
        self._catch_up = catch_up
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[KeptTable, asyncio.TimerHandle] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._by_path: defaultdict[str, set[KeptTable]] = defaultdict(set)
        self._folders: set[str] = set()  # of certificates
        for table in tables:
            for path in (table.name, os.path.realpath(table.name)):
                self._by_path[path].add(table)
        self._manager = pyinotify.WatchManager()
        self._notifier = pyinotify.Notifier(self._manager, self._event, timeout=0)
        for directory in {os.path.dirname(path) for path in self._by_path}:
            self._manager.add_watch(directory, _EVENTS)
        self._loop.add_reader(self._manager.get_fd(), self._read)

    def follow(self, paths: Iterable[str]) -> None:
        """Watch certificates, too, wherever they are now."""
        folders = {folder for path in paths for folder in _folders(path)}
        for folder in folders - self._folders - {""}:
            self._manager.add_watch(folder, _LINKS_TOO)
        self._folders |= folders

    def _read(self) -> None:
        self._notifier.read_events()
        self._notifier.process_events()

    def _event(self, event: pyinotify.Event) -> None:
        if event.mask & pyinotify.IN_Q_OVERFLOW:
            self._loop.call_later(_SETTLE, self._catch_up)
            return
        if event.path in self._folders and self._looking is None:
            self._looking = self._loop.call_later(_SETTLE, self._look_twice)
        if event.mask & _EVENTS:
            for table in self._by_path.get(event.pathname, ()):
                self._tell(table)

    def _tell(self, table: KeptTable) -> None:
        waiting = self._waiting.get(table)
        if waiting is not None:
            waiting.cancel()
        self._waiting[table] = self._loop.call_later(_SETTLE, partial(self._keeper.changed, table))

    def _look_twice(self) -> None:
        self._looking = None
        self._look(settled=False)
        self._loop.call_later(_WRITTEN, partial(self._look, settled=True))


def _folders(path: str) -> Iterator[str]:
    """The directories of a name, and of the links that it is."""
    for _ in range(_MOST_LINKS):
        yield os.path.dirname(path)
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break
    with suppress(OSError):
        yield os.path.dirname(os.path.realpath(path))
