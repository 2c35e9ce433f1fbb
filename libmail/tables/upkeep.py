"""Indexed tables that stay as new as their sources: table_auto_rebuild.

Called by: postfix(1) before a start and a reload, tablewatch(8) while the system runs.  What is
written is what postmap(1) and postalias(1) would write, but a source with a line that is no entry,
or that somebody could have written who is not trusted, is not used at all.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from libmail.config import Config, ConfigError, ServiceEntry
from libmail.tables.dialects import POSTALIAS, POSTMAP
from libmail.tables.maintenance import Target, build, indexed_path
from libmail.tables.table import TableError, TableOptions

__all__ = ["DistrustedSource", "KeptTable", "kept_tables", "trusted_owners"]

_TABLE: Final = re.compile(r"(?<![\w-])(btree|cdb|dbm|hash|lmdb):(/[^\s,{}]+)")
_OF_ALIASES: Final = ("alias_maps", "alias_database")
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class DistrustedSource(TableError):
    """Somebody could have written a source who is not trusted."""


@dataclass(frozen=True, slots=True)
class KeptTable:
    """A table `kind:name`; aliases: its source is of the form that postalias(1) reads."""

    kind: str
    name: str
    aliases: bool

    @property
    def spec(self) -> str:
        """The table as "type:name"."""
        return f"{self.kind}:{self.name}"

    def _target(self, config: Config) -> Target:
        options = TableOptions(
            utf8=config.bool("smtputf8_enable"),
            strict=True,
            map_size=config.int("lmdb_map_size"),
            config=config,
        )
        return Target(self.kind, self.name, options, null=self.kind != "cdb", whole=True)

    def path(self, config: Config) -> str:
        """The indexed file. Raises `TableError` where this type of table is not there."""
        return indexed_path(self._target(config))

    def outdated(self, config: Config) -> bool:
        """Whether there is a source, and no indexed file of its age."""
        source, made = _time(self.name), _time(self.path(config))
        return source is not None and (made is None or made < source)

    def differs(self, config: Config) -> bool:
        """Whether there is a source other than that of the last `rebuild`."""
        source = _time(self.name)
        return source is not None and source != _time(self.path(config))

    def rebuild(self, config: Config, owners: Collection[int]) -> str:
        """Make the indexed file, with the date of its source, and return its path.

        owners: user ids that may own the source and its directory.  Raises `DistrustedSource`,
        `BadSource` for a line that is no entry, `TableError`, OSError.
        """
        self._check_trust(owners)
        target = self._target(config)
        path = indexed_path(target)
        source = build(target, POSTALIAS if self.aliases else POSTMAP)
        try:
            os.utime(path, ns=(source.st_atime_ns, source.st_mtime_ns))
        except OSError as error:
            raise TableError(f"{path}: {error.strerror}") from error
        return path

    def _check_trust(self, owners: Collection[int]) -> None:
        for path in (self.name, os.path.dirname(os.path.realpath(self.name))):
            status = os.stat(path)
            if status.st_uid not in owners:
                raise DistrustedSource(f"{path} belongs to user {status.st_uid}")
            if status.st_mode & _OTHERS_MAY_WRITE:
                raise DistrustedSource(f"{path} is group or other writable")


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
    found: dict[tuple[str, str], None] = {}
    for name, text in _values(config, entries):
        specs = _TABLE.findall(text)
        found.update(dict.fromkeys(specs))
        if name in _OF_ALIASES:
            aliases.update(specs)
    return tuple(KeptTable(kind, name, (kind, name) in aliases) for kind, name in found)


def _values(config: Config, entries: Sequence[ServiceEntry]) -> Iterator[tuple[str, str]]:
    """Names of parameters with their expanded values, as far as those are set."""
    pairs = [(name, config.raw(name) or "") for name in (*config.names(), *_OF_ALIASES)]
    pairs += [pair for entry in entries for pair in entry.overrides]
    for name, text in pairs:
        try:
            yield name, config.expand(text)
        except ConfigError:
            continue  # whoever reads it complains


def trusted_owners(owner: int) -> frozenset[int]:
    """Those whose sources are used: root, and mail_owner, whose user id is given."""
    return frozenset((0, owner))
