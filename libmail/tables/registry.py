"""The table types by name, and opening a table by its `type:name`.

A driver module is imported when the first table of its type is opened, so a program pays only
for what it uses; daemons open their tables before they enter the jail.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

from libmail.tables.braces import split_list, strip_braces
from libmail.tables.surrogate import UnavailableTable
from libmail.tables.table import Log, Table, TableConfigError, TableOptions, WritableTable

__all__ = [
    "PROXY",
    "TABLE_TYPES",
    "is_pattern",
    "open_table",
    "open_with",
    "open_writable",
    "split_spec",
    "without_proxy",
]

TABLE_TYPES: Final[Mapping[str, str]] = {
    "btree": "libmail.tables.disk.lmdb_file",
    "cdb": "libmail.tables.disk.cdb_file",
    "cidr": "libmail.tables.patterns.cidr",
    "dbm": "libmail.tables.disk.lmdb_file",
    "debug": "libmail.tables.composition.debug",
    "environ": "libmail.tables.builtin.environ",
    "fail": "libmail.tables.builtin.fail",
    "hash": "libmail.tables.disk.lmdb_file",
    "inline": "libmail.tables.builtin.inline",
    "internal": "libmail.tables.builtin.internal",
    "ldap": "libmail.tables.servers.ldap",
    "lmdb": "libmail.tables.disk.lmdb_file",
    "memcache": "libmail.tables.servers.memcache",
    "mongodb": "libmail.tables.servers.mongodb",
    "mta-sts": "libmail.tables.servers.mta_sts",
    "mysql": "libmail.tables.sql.mysql",
    "pcre": "libmail.tables.patterns.pcre",
    "pgsql": "libmail.tables.sql.pgsql",
    "pipemap": "libmail.tables.composition.pipemap",
    "proxy": "libmail.tables.servers.proxy",
    "randmap": "libmail.tables.composition.randmap",
    "regexp": "libmail.tables.patterns.regexp",
    "socketmap": "libmail.tables.servers.socketmap",
    "sqlite": "libmail.tables.sql.sqlite",
    "static": "libmail.tables.builtin.static",
    "tcp": "libmail.tables.servers.tcp",
    "texthash": "libmail.tables.disk.texthash",
    "unionmap": "libmail.tables.composition.unionmap",
    "unix": "libmail.tables.builtin.unix",
}


_WRITABLE: Final[Mapping[str, str]] = {
    "btree": "libmail.tables.disk.lmdb_cache",
    "dbm": "libmail.tables.disk.lmdb_cache",
    "hash": "libmail.tables.disk.lmdb_cache",
    "internal": "libmail.tables.builtin.internal",
    "lmdb": "libmail.tables.disk.lmdb_cache",
    "memcache": "libmail.tables.servers.memcache",
    "proxy": "libmail.tables.servers.proxy",
}

PROXY: Final = "proxy:"
_PATTERNS: Final = frozenset(
    {"cidr", "mta-sts", "pcre", "randmap", "regexp", "socketmap", "static", "tcp"}
)
_NAMELESS: Final = "mta-sts"
_OF_OTHERS: Final = frozenset({"pipemap", "unionmap"})
_AROUND: Final = frozenset({"debug", "proxy"})


class Driver(Protocol):
    """What each driver module offers."""

    def open_named(self, kind: str, name: str, options: TableOptions) -> Table:
        """Open the table; raises `TableConfigError`."""


class WritableDriver(Protocol):
    """What the driver modules of types offer that can be changed entry by entry."""

    def open_writable(self, kind: str, name: str, options: TableOptions) -> WritableTable:
        """Open the table, making it where it is not there; raises `TableConfigError`."""


def split_spec(spec: str) -> tuple[str, str]:
    """Split "type:name"; raises `TableConfigError` when a part is missing.

    There is one table "mta-sts:", which has no name.
    """
    kind, colon, name = spec.partition(":")
    if not (kind and colon and (name or kind == _NAMELESS)):
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
        return _unavailable(spec, error, options)


def open_writable(spec: str, options: TableOptions) -> WritableTable:
    """Open a table whose entries this process changes one by one, such as a cache.

    A file that is not there is made, by root as `mail_owner`. Raises `TableConfigError` as
    `open_with` does.
    """
    kind, name = split_spec(spec)
    try:
        module = _WRITABLE.get(kind)
        if module is None:
            raise TableConfigError(f"{spec}: tables of this type cannot be updated")
        return cast(WritableDriver, import_module(module)).open_writable(kind, name, options)
    except TableConfigError as error:
        return _unavailable(spec, error, options)


def _unavailable(spec: str, error: TableConfigError, options: TableOptions) -> UnavailableTable:
    if options.strict:
        raise error
    options.log.error(str(error))
    return UnavailableTable(spec, str(error), options.log)


def without_proxy(spec: str) -> str:
    """The table that proxymap(8) would open: without any "proxy:" in front."""
    while spec.startswith(PROXY):
        spec = spec.removeprefix(PROXY)
    return spec


def is_pattern(spec: str) -> bool:
    """What `Table.pattern` of the table would be, without opening it."""
    kind, _, name = spec.partition(":")
    if kind in _AROUND:
        return is_pattern(name)
    if kind not in _OF_OTHERS:
        return kind in _PATTERNS
    try:
        inner = split_list(strip_braces(name))
    except ValueError:
        return False
    return all(is_pattern(one) for one in inner)


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
