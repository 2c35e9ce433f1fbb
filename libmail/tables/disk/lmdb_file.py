"""lmdb:/path, and hash:, btree: and dbm: - indexed files, made by postmap and postalias.

All four read `/path.lmdb`.  The file is the one of Postfix's own lmdb driver: keys and values may
end in a null byte, LMDB's lock file is not used, and every transaction runs under a whole-file
fcntl lock instead, so programs of both systems may share a table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from fcntl import LOCK_SH, LOCK_UN, lockf
from typing import Final
from weakref import WeakValueDictionary, finalize

import lmdb

from libmail.files.freshness import register
from libmail.files.safe_open import safe_open
from libmail.tables.table import (
    TableConfigError,
    TableFailed,
    TableOptions,
    TableRetry,
    key_filter,
    usable_value,
)

__all__ = ["LmdbTable", "OpenFile", "database_path", "open_named", "to_bytes", "to_text"]

_CHECK_INTERVAL: Final = 1.0  # seconds between two looks for a replaced file
_MAX_KEY: Final = 511  # LMDB's limit, with the null byte


def database_path(name: str) -> str:
    """Return the path of the indexed file of the table `name`."""
    return f"{name}.lmdb"


def to_bytes(text: str) -> bytes:
    """Convert a key or value to the bytes in the file."""
    # Nearly all keys; naming an error handler costs more than the rest of the conversion.
    return text.encode() if text.isascii() else text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    """Convert bytes in the file to text, without a null byte at the end."""
    if data.endswith(b"\0"):
        data = data[:-1]
    return data.decode() if data.isascii() else data.decode("utf-8", "surrogateescape")


class OpenFile:
    """An open LMDB file for reading."""

    def __init__(self, path: str, map_size: int) -> None:
        self.path = path
        self.fd = safe_open(path, os.O_RDONLY)
        if os.geteuid() == 0:  # what was opened, whatever has the name by now
            path = f"/proc/self/fd/{self.fd}"
        try:
            status = os.fstat(self.fd)
            self.identity = (status.st_dev, status.st_ino)
            lockf(self.fd, LOCK_SH)
            self._environment = lmdb.open(
                path, subdir=False, readonly=True, lock=False, map_size=map_size, max_dbs=0
            )
            lockf(self.fd, LOCK_UN)
        except BaseException:
            os.close(self.fd)
            raise
        # Runs when the last table that shares the file is gone.
        finalize(self, _close, self._environment, self.fd)
        register(self)

    @property
    def replaced(self) -> bool:
        """True: the file lost its name to another one.  A change in place is seen at once."""
        return os.fstat(self.fd).st_nlink == 0

    def _begin(self) -> lmdb.Transaction:
        """Begin to read; the library keeps the finished transaction and renews it."""
        try:
            return self._environment.begin()
        except lmdb.MapResizedError:
            # Another process made the file larger than our map of it.
            self._environment.set_mapsize(0)
            return self._environment.begin()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key (without null byte), or None.  Raises `lmdb.Error`."""
        fd = self.fd
        lockf(fd, LOCK_SH)
        try:
            transaction = self._begin()
            # Files made with and without null bytes (postmap -N, -n) are both accepted.
            value: bytes | None = transaction.get(key + b"\0")  # type: ignore[assignment]
            if value is None:
                value = transaction.get(key)  # type: ignore[assignment]
            transaction.abort()
            return value
        finally:
            lockf(fd, LOCK_UN)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """As `get` for each key, in one transaction.  Raises `lmdb.Error`."""
        lockf(self.fd, LOCK_SH)
        try:
            transaction = self._begin()
            get: Callable[[bytes], bytes | None] = transaction.get  # type: ignore[assignment]
            values = [get(key + b"\0") for key in keys]
            for number, value in enumerate(values):
                if value is None and keys[number]:
                    values[number] = get(keys[number])
            transaction.abort()
            return values
        finally:
            lockf(self.fd, LOCK_UN)

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return a snapshot of all entries, in key order.  Raises `lmdb.Error`."""
        lockf(self.fd, LOCK_SH)
        try:
            transaction = self._begin()
            entries = [(bytes(key), bytes(value)) for key, value in transaction.cursor()]
            transaction.abort()
            return entries
        finally:
            lockf(self.fd, LOCK_UN)


def _close(environment: lmdb.Environment, fd: int) -> None:
    environment.close()
    os.close(fd)


# LMDB allows a file to be open once in a process, and tables of different parameters often share
# a file.  So the process keeps count of what is open, without keeping it open.
_OPEN_FILES: Final[WeakValueDictionary[tuple[int, int], OpenFile]] = WeakValueDictionary()


def _open_file(path: str, map_size: int) -> OpenFile:
    status = os.stat(path)
    shared = _OPEN_FILES.get((status.st_dev, status.st_ino))
    if shared is not None:
        return shared
    opened = OpenFile(path, map_size)
    _OPEN_FILES[opened.identity] = opened
    return opened


class LmdbTable:
    """A table over an LMDB file."""

    pattern = False

    def __init__(self, spec: str, path: str, options: TableOptions) -> None:
        self.spec = spec
        self._path = path
        self._options = options
        self._ready = key_filter(spec, options)
        self._file: OpenFile | None = None
        self._open()
        self._next_check = time.monotonic() + _CHECK_INTERVAL

    def _open(self) -> OpenFile:
        try:
            self._file = _open_file(self._path, self._options.map_size)
        except OSError as error:
            raise TableConfigError(f"open database {self._path}: {error.strerror}") from error
        except lmdb.Error as error:
            raise TableConfigError(f"open database {self._path}: {error}") from error
        return self._file

    def _current(self) -> OpenFile:
        """Return the file that has the name now, looking for a new one once a second."""
        file = self._file
        now = time.monotonic()
        if file is not None and now < self._next_check:
            return file
        self._next_check = now + _CHECK_INTERVAL
        if file is None:
            return self._open()
        try:
            status = os.stat(self._path)
        except OSError:
            return file  # behind the jail, or being replaced
        if (status.st_dev, status.st_ino) == file.identity:
            return file
        try:
            return self._open()
        except TableConfigError as error:
            self._options.log.warning(f"{self.spec}: {error}; using the file that it replaced")
            return file

    async def lookup(self, key: str) -> str | None:
        """Return the value of the key, or None.  Raises `TableRetry`."""
        data = self._stored(key)
        if not data:
            return None
        try:
            value = self._current().get(data)
        except (OSError, lmdb.Error, TableConfigError) as error:
            raise TableFailed(self.spec, str(error)) from error
        return None if value is None else self._usable(key, value)

    def lookup_many(self, keys: Sequence[str]) -> list[str | None]:
        """Return a value or None for each key.  Raises `TableRetry`."""
        try:
            values = self._current().get_many([self._stored(key) for key in keys])
        except (OSError, lmdb.Error, TableConfigError) as error:
            raise TableFailed(self.spec, str(error)) from error
        return [
            None if value is None else self._usable(key, value)
            for key, value in zip(keys, values, strict=True)
        ]

    def _stored(self, key: str) -> bytes:
        """The key as it is in the file; b"" for one that cannot be there."""
        wanted = self._ready(key)
        data = to_bytes(wanted) if wanted else b""
        return data if len(data) < _MAX_KEY else b""

    def _usable(self, key: str, value: bytes) -> str:
        text = to_text(value)
        return text if text.isascii() else usable_value(self.spec, key, text, self._options)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Give all entries, sorted by the bytes of their keys."""
        try:
            found = self._current().items()
        except (OSError, lmdb.Error) as error:
            raise TableRetry(f"table {self.spec} sequence error: {error}") from error
        return ((to_text(key), to_text(value)) for key, value in found)

    def close(self) -> None:
        """Let go of the file; it is closed when no other table uses it."""
        self._file = None


def open_named(kind: str, name: str, options: TableOptions) -> LmdbTable:
    """Open `lmdb:name`; raises `TableConfigError`."""
    return LmdbTable(f"{kind}:{name}", database_path(name), options)
