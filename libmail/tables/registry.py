"""The table types by name, and opening a table by its `type:name`.

A driver module is imported when the first table of its type is opened, so a program pays only
for what it uses; daemons open their tables before they enter the jail.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from libmail.tables.surrogate import UnavailableTable
from libmail.tables.table import Log, Table, TableConfigError, TableOptions

__all__ = ["TABLE_TYPES", "open_table", "open_with", "split_spec"]

TABLE_TYPES: Final[Mapping[str, str]] = {
    "btree": "libmail.tables.lmdb_file",
    "cdb": "libmail.tables.cdb_file",
    "cidr": "libmail.tables.cidr",
    "dbm": "libmail.tables.lmdb_file",
    "debug": "libmail.tables.debug",
    "environ": "libmail.tables.environ",
    "fail": "libmail.tables.fail",
    "hash": "libmail.tables.lmdb_file",
    "inline": "libmail.tables.inline",
    "internal": "libmail.tables.internal",
    "ldap": "libmail.tables.ldap",
    "lmdb": "libmail.tables.lmdb_file",
    "mongodb": "libmail.tables.mongodb",
    "mysql": "libmail.tables.mysql",
    "pcre": "libmail.tables.pcre",
    "pgsql": "libmail.tables.pgsql",
    "pipemap": "libmail.tables.pipemap",
    "randmap": "libmail.tables.randmap",
    "regexp": "libmail.tables.regexp",
    "socketmap": "libmail.tables.socketmap",
    "sqlite": "libmail.tables.sqlite",
    "static": "libmail.tables.static",
    "tcp": "libmail.tables.tcp",
    "texthash": "libmail.tables.texthash",
    "unionmap": "libmail.tables.unionmap",
    "unix": "libmail.tables.unix",
}


class Driver(Protocol):
    """What each driver module offers."""

    def open_named(self, kind: str, name: str, options: TableOptions) -> Table:
        """Open the table; raises `TableConfigError`."""


def split_spec(spec: str) -> tuple[str, str]:
    """Split "type:name"; raises `TableConfigError` when a part is missing."""
    kind, colon, name = spec.partition(":")
    if not (kind and colon and name):
        raise TableConfigError(f'open dictionary: expecting "type:name" form instead of "{spec}"')
    return kind, name


def open_with(spec: str, options: TableOptions) -> Table:
    """Open a table with given options.

    Raises `TableConfigError` for text that is no "type:name"; for a table that cannot be opened
    only when `options.strict` is set.
    """
    kind, name = split_spec(spec)
    try:
        module = TABLE_TYPES.get(kind)
        if module is None:
            raise TableConfigError(f"unsupported dictionary type: {kind}")
        return cast(Driver, import_module(module)).open_named(kind, name, options)
    except TableConfigError as error:
        if options.strict:
            raise
        options.log.error(str(error))
        return UnavailableTable(spec, str(error), options.log)


def open_table(
    spec: str,
    *,
    fold: bool = True,
    utf8: bool = True,
    strict: bool = False,
    map_size: int = 16777216,
    log: Log | None = None,
) -> Table:
    """Open the table `type:name`; the arguments are those of `TableOptions`.

    Raises `TableConfigError` as `open_with` does.
    """
    options = TableOptions(fold=fold, utf8=utf8, strict=strict, map_size=map_size)
    if log is not None:
        options = TableOptions(fold=fold, utf8=utf8, strict=strict, map_size=map_size, log=log)
    return open_with(spec, options)
