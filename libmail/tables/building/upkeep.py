"""Indexed tables that stay as new as their sources: table_auto_rebuild.

Called by: postfix(1) before a start and a reload, tablewatch(8) while the system runs.  What is
written is what postmap(1) and postalias(1) would write, but a source with a line that is no entry,
or that somebody could have written who is not trusted, is not used at all.

Both callers are root, and mail_owner may own directories on the way to a table.  So a table is
built by the rights of the least one who decides where its names lead: every directory and link on
the way to the source and to the indexed file belongs to root, and nobody else can change where they
lead, or a process of mail_owner builds it, who gains nothing by leading it astray.  Caches are left
alone: what has a cache's name beside it is no source.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final, TypeAlias

from libmail.config import Config, ServiceEntry
from libmail.files.safe_open import Place
from libmail.privileges import Identity
from libmail.tables.building.caches import cache_names, settings
from libmail.tables.building.dialects import POSTALIAS, POSTMAP
from libmail.tables.building.maintenance import build, build_as, indexed_path
from libmail.tables.building.source import Target
from libmail.tables.file_values import encoded, named_files
from libmail.tables.table import TableError, TableOptions

__all__ = ["DistrustedSource", "KeptTable", "Value", "kept_tables"]

Value: TypeAlias = Callable[[str], str]
"""What gives the value for names of files; raises `EntryError`."""

_TABLE: Final = re.compile(r"(?<![\w-])(btree|cdb|dbm|hash|lmdb):(/[^\s,{}]+)")
_OF_ALIASES: Final = ("alias_maps", "alias_database")
_OF_FILES: Final = "tls_server_sni_maps"
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class DistrustedSource(TableError):
    """Somebody could have written a source who is not trusted."""


@dataclass(frozen=True, slots=True)
class KeptTable:
    """A table `kind:name`.

    aliases: its source is of the form that postalias(1) reads. files: its values are the contents
    of files that the source names, as with postmap -F.
    """

    kind: str
    name: str
    aliases: bool
    files: bool = False

    @property
    def spec(self) -> str:
        """The table as "type:name"."""
        return f"{self.kind}:{self.name}"

    def _target(self, config: Config, value: Value | None = None) -> Target:
        options = TableOptions(
            utf8=config.bool("smtputf8_enable"),
            strict=True,
            map_size=config.int("lmdb_map_size"),
            config=config,
        )
        null = self.kind != "cdb"
        return Target(self.kind, self.name, options, null=null, convert=value, whole=True)

    def path(self, config: Config) -> str:
        """The indexed file. Raises `TableError` where this type of table is not there."""
        return indexed_path(self._target(config))

    def outdated(self, config: Config) -> bool:
        """Whether there is a source, and no indexed file of its age."""
        source, made = self._date(), _time(self.path(config))
        return source is not None and (made is None or made < source)

    def differs(self, config: Config) -> bool:
        """Whether there is a source other than that of the last `rebuild`."""
        source = self._date()
        return source is not None and source != _time(self.path(config))

    def _date(self) -> int | None:
        """Of the newest of its sources, in ns; None where there is none."""
        date = _time(self.name)
        if date is None or not self.files:
            return date
        try:
            return max(date, *(_time(path) or 0 for path in chain(*named_files(self.name))), 0)
        except OSError:
            return date

    def rebuild(self, config: Config, owner: Identity, value: Value = encoded) -> str:
        """Make the indexed file, with the date of its source, and return its path.

        owner: mail_owner, who is trusted like root.  value: what names of files stand for, where
        root alone decides which they are.  Raises `DistrustedSource`, `BadSource` for a line that
        is no entry, `TableError`, OSError.
        """
        path, date = self.path(config), self._date()
        trusted = (0, owner.uid)

        def judge(source: os.stat_result) -> None:
            if not stat.S_ISREG(source.st_mode):
                raise DistrustedSource(f"{self.name} is no ordinary file")
            _check(self.name, source, trusted)

        def work(value: Value) -> None:
            dialect = POSTALIAS if self.aliases else POSTMAP
            target = self._target(config, value if self.files else None)
            build(target, dialect, judge=judge, date=date)

        deciding = _deciding(self.name, trusted) | _deciding(path, trusted, made=True)
        if os.geteuid() == 0 != owner.uid and owner.uid in deciding:
            build_as(owner, partial(work, encoded))  # files that the owner can read
        else:
            work(value)
        return path


def _deciding(path: str, trusted: Collection[int], *, made: bool = False) -> set[int]:
    """Who decides what a path leads to, all of them trusted. Raises `DistrustedSource`, OSError.

    made: the owner of the file, too, for it will be changed.
    """
    with Place(path) as place:
        for at, status in place.passed:
            # In a sticky directory everybody may add names, and nobody change those of others.
            if status.st_mode & stat.S_ISVTX or stat.S_ISLNK(status.st_mode):
                _check_owner(at, status, trusted)
            else:
                _check(at, status, trusted)
        _check(os.path.dirname(path), os.fstat(place.folder), trusted)
        deciding = {status.st_uid for _, status in place.passed}
        if made:
            with suppress(FileNotFoundError):
                found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
                _check_owner(path, found, trusted)
                deciding.add(found.st_uid)
    return deciding


def _check(path: str, status: os.stat_result, trusted: Collection[int]) -> None:
    _check_owner(path, status, trusted)
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise DistrustedSource(f"{path} is group or other writable")


def _check_owner(path: str, status: os.stat_result, trusted: Collection[int]) -> None:
    if status.st_uid not in trusted:
        raise DistrustedSource(f"{path} belongs to user {status.st_uid}")


def _time(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def kept_tables(config: Config, entries: Sequence[ServiceEntry]) -> tuple[KeptTable, ...]:
    """The indexed tables that main.cf and the options in master.cf name, where it is wanted."""
    if not config.bool("table_auto_rebuild"):
        return ()
    aliases: set[tuple[str, str]] = set()
    files: set[tuple[str, str]] = set()
    found: dict[tuple[str, str], None] = {}
    for name, text in settings(config, entries, _OF_ALIASES):
        specs = _TABLE.findall(text)
        found.update(dict.fromkeys(specs))
        if name in _OF_ALIASES:
            aliases.update(specs)
        if name == _OF_FILES:
            files.update(specs)
    caches = cache_names(config, entries)
    return tuple(
        KeptTable(kind, name, (kind, name) in aliases, (kind, name) in files)
        for kind, name in found
        if name not in caches
    )
