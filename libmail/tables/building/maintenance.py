"""Building, querying, listing and changing tables: what postmap and postalias have in common."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Final

from libmail.files.safe_open import Place, safe_open
from libmail.log import LOG
from libmail.privileges import Identity, in_process_of
from libmail.tables.building.source import (
    BadSource,
    Dialect,
    Target,
    folded,
    read_entries,
    read_source,
    stored_form,
)
from libmail.tables.disk.cdb_file import cdb_path, write_cdb
from libmail.tables.disk.lmdb_file import database_path, to_bytes
from libmail.tables.disk.lmdb_writer import LmdbWriter
from libmail.tables.registry import TABLE_TYPES, open_with, open_writable
from libmail.tables.table import (
    BulkTable,
    SequenceTable,
    Table,
    TableConfigError,
    TableError,
    TableFailed,
    TableUnsupported,
    lookup_now,
    run_now,
)

__all__ = [
    "add",
    "build",
    "build_as",
    "delete",
    "indexed_path",
    "list_entries",
    "query",
]

_INDEXED: Final = frozenset({"lmdb", "hash", "btree", "dbm"})
_CDB: Final = "cdb"
_READ_ONLY: Final = frozenset(
    {"cidr", "inline", "pcre", "pipemap", "randmap", "regexp", "texthash", "unionmap", "unix"}
)
_DELETING: Final = frozenset({"proxy", "memcache"})
_BAD: Final = "b"  # what a process reports that builds a table for us
_FAILED: Final = "f"


def indexed_path(target: Target) -> str:
    """Return the path of the indexed file.  Raises `TableConfigError` for other types."""
    if target.kind in _INDEXED:
        return database_path(target.name)
    if target.kind == _CDB:
        return cdb_path(target.name)
    if target.kind in TABLE_TYPES:
        raise TableConfigError(f"no 'map create' support for this type: {target.kind}")
    raise TableConfigError(f"unsupported map type: {target.kind}")


def _changeable_path(target: Target) -> str:
    """As `indexed_path`, for a file that can be changed in place."""
    if target.kind == _CDB:
        raise TableUnsupported(f"{target.spec}: a cdb file can only be made as a whole")
    return indexed_path(target)


def _open_source(path: str) -> BinaryIO:
    try:
        return open(path, "rb", opener=safe_open)
    except OSError as error:
        raise TableConfigError(f"open {path}: {error.strerror}") from error


def build(
    target: Target,
    dialect: Dialect,
    *,
    judge: Callable[[os.stat_result], None] | None = None,
    date: int | None = None,
) -> None:
    """Make the table anew from its source file, as the owner of the source where this is root.

    judge: raises TableError for a source, which is open, that is not to be used.  date: give
    the table this one, in ns.  Raises `TableError`.
    """
    if target.kind == "proxy":
        raise TableConfigError("can't create maps via the proxy service")
    with _open_source(target.name) as source:
        path = indexed_path(target)
        status = os.fstat(source.fileno())
        if judge is not None:
            judge(status)

        def work() -> None:
            _build(target, dialect, source, path)
            _date(path, status, date)

        if target.source_owner and status.st_uid != 0 and os.geteuid() == 0:
            build_as(Identity(f"uid {status.st_uid}", status.st_uid, status.st_gid, ()), work)
        else:
            work()


def _build(target: Target, dialect: Dialect, source: BinaryIO, path: str) -> None:
    mode = 0o644 if target.convert is None else 0o640  # what files say may be private keys
    mode &= os.fstat(source.fileno()).st_mode if target.source_mode else mode
    stored = read_source(target, dialect, source)
    if target.kind == _CDB:
        write_cdb(target.spec, path, stored, mode)
    else:
        LmdbWriter(target.spec, path, target.options.map_size, mode).rebuild(stored)


def _date(path: str, source: os.stat_result, date: int | None) -> None:
    """Date a table as said, or after its source: an older one looks outdated to `postfix`."""
    try:
        with Place(path) as place:
            table = place.open(os.O_RDONLY)
        try:
            if date is not None:
                os.utime(table, ns=(date, date))
            elif os.fstat(table).st_mtime <= source.st_mtime <= time.time():
                os.utime(table)
        finally:
            os.close(table)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from error


def build_as(user: Identity, work: Callable[[], None]) -> None:
    """Build a table in a process of `user`, by the rights that he has.  Raises `TableError`."""

    def reported() -> str:
        try:
            work()
        except BadSource as error:
            return f"{_BAD}{error}"
        except TableError as error:
            return f"{_FAILED}{error}"
        except OSError as error:
            return f"{_FAILED}{error.strerror}"
        return ""

    try:
        report = in_process_of(user, reported)
    except OSError as error:
        raise TableError(str(error.strerror)) from error
    if report:
        raise (BadSource if report.startswith(_BAD) else TableError)(report[1:])


def add(target: Target, dialect: Dialect, lines: Iterable[str]) -> None:
    """Add entries to the table, which need not exist yet.  Raises `TableError`."""
    if target.kind == "proxy":
        _update(target, read_entries(target, dialect, "stdin", lines))
        return
    path = _changeable_path(target)
    entries = read_entries(target, dialect, "stdin", lines)
    writer = LmdbWriter(target.spec, path, target.options.map_size)
    stored = stored_form(target, dialect, entries)
    own = {to_bytes(key) for key in dialect.fixed()}
    end = b"\0" if target.null else b""
    own.update(to_bytes(key) + end for key in dialect.always)
    changes = {key: value for key, value in stored.items() if key not in own}
    there = writer.add(changes, replace=target.duplicates == "replace", other=_other_form)
    writer.add({key: stored[key] for key in own}, replace=True, other=_other_form)
    if target.duplicates == "warn":
        for key in there:
            shown = key.removesuffix(b"\0").decode("utf-8", "surrogateescape")
            LOG.warning(f'{target.spec}: duplicate entry: "{shown}"')


def _update(target: Target, entries: Mapping[str, str]) -> None:
    """Add entries one by one."""
    table = open_writable(target.spec, target.options)
    for key, value in entries.items():
        if target.duplicates != "replace" and run_now(table.lookup(key)) is not None:
            if target.duplicates == "warn":
                LOG.warning(f'{target.spec}: duplicate entry: "{key}"')
            continue
        run_now(table.update(key, value))


def _other_form(key: bytes) -> bytes:
    """Return the key as the other convention of null bytes has it."""
    return key[:-1] if key.endswith(b"\0") else key + b"\0"


def delete(target: Target, keys: Iterable[str]) -> bool:
    """Delete entries; tell whether any of them was there.  Raises `TableError`."""
    if target.kind in _DELETING:
        table = open_writable(target.spec, target.options)
        deleted = [run_now(table.delete(key)) for key in keys]  # all of them
        return any(deleted)
    if target.kind not in _INDEXED and target.kind != _CDB:
        if target.kind not in TABLE_TYPES:
            raise TableConfigError(f"unsupported dictionary type: {target.kind}")
        if target.kind in _READ_ONLY:
            raise TableUnsupported(f"{target.spec} map requires O_RDONLY access mode")
        if target.kind == "fail":
            raise TableError(f"table {target.spec}: delete error: Application error")
        raise TableUnsupported(f"table {target.spec}: delete operation is not supported")
    path = _changeable_path(target)
    if not os.path.exists(path):
        return False
    options = target.options
    stored = [to_bytes(folded(key, options) if options.fold else key) for key in keys]
    writer = LmdbWriter(target.spec, path, options.map_size)
    return writer.delete([(key + b"\0", key) for key in stored]) > 0


def query(target: Target, table: Table, keys: Sequence[str]) -> list[str | None]:
    """Look up keys.  Raises `TableError` with the words of the log."""
    try:
        if isinstance(table, BulkTable):
            values = table.lookup_many(keys)
        else:
            values = [lookup_now(table, key) for key in keys]
    except TableError as error:
        reason = error.reason if isinstance(error, TableFailed) else str(error)
        if reason.startswith('key "'):
            raise TableError(f"table {target.spec}: query error") from error
        raise TableError(f"table {target.spec}: query error: {reason}") from error
    if "" in values:
        key = keys[values.index("")]
        LOG.warning(f"table {target.spec}: key {key}: empty string result is not allowed")
        LOG.warning(f"table {target.spec} should return NO RESULT in case of NOT FOUND")
    return values


def list_entries(target: Target) -> Iterator[tuple[str, str]]:
    """Give all entries of a table.  Raises `TableError`."""
    table = open_with(target.spec, target.options)
    if isinstance(table, SequenceTable):
        return table.entries()
    if target.kind == "fail":
        raise TableError(f"table {target.spec}: sequence error: Application error")
    raise TableUnsupported(f"table {target.spec}: sequence operation is not supported")
