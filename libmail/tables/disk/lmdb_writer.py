"""Writing LMDB tables: building one as a whole, adding and deleting entries.

A change is one transaction under an exclusive fcntl lock, with the data on disk before it counts.
Readers see the table as it was before or as it is after; so does whoever finds it after a crash.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import lmdb

from libmail.files.durable import sync_directory
from libmail.files.safe_open import Place, safe_open
from libmail.tables.table import TableError

__all__ = ["LmdbWriter"]

_SLACK: Final = 1 << 20  # bytes of a new table for its pages that are not data
_MAX_KEY: Final = 511  # octets, LMDB's limit
_MAX_MAP: Final = 1 << 40

T = TypeVar("T")
Pair = tuple[bytes, bytes]


class LmdbWriter:
    """Changes the table in one file, which need not exist yet."""

    def __init__(self, spec: str, path: str, map_size: int, mode: int = 0o644) -> None:
        """map_size: smallest size limit in bytes.  mode: of a file that is made new."""
        self.spec = spec
        self._path = path
        self._map_size = map_size
        self._mode = mode

    def rebuild(self, entries: Mapping[bytes, bytes]) -> None:
        """Replace all entries.  A table that was not there appears complete.

        Raises `TableError`.
        """
        pairs = _sorted_pairs(entries)
        size = max(self._map_size, 4 * sum(map(len, entries)) + _SLACK)
        size = max(size, 3 * sum(map(len, entries.values())) + size)
        with self._reported(), Place(self._path) as place:
            fd = self._existing(place)
            if fd is None or not self._replace_all(fd, pairs, size):
                self._create(place, pairs, size)

    @staticmethod
    def _existing(place: Place) -> int | None:
        try:
            return place.open(os.O_RDWR)
        except FileNotFoundError:
            return None

    def _replace_all(self, fd: int, pairs: Sequence[Pair], size: int) -> bool:
        """Rewrite an existing file in place, and close it; False: it is no LMDB file."""

        def replace(environment: lmdb.Environment) -> None:
            with environment.begin(write=True) as transaction:
                transaction.drop(environment.open_db(txn=transaction), delete=False)
                transaction.cursor().putmulti(pairs, append=True)

        try:
            self._change(fd, size, replace)
        except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError):
            return False
        return True

    def _create(self, place: Place, pairs: Sequence[Pair], size: int) -> None:
        """Build a new file and give it its name when it is complete."""
        place.check()
        temporary = place.beside(f"{place.name}.{os.getpid()}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(temporary, flags, self._mode)
        try:
            os.fchmod(fd, self._mode)
            self._replace_all(fd, pairs, size)
            os.rename(temporary, place.beside(place.name))
        except BaseException:
            os.unlink(temporary)
            raise
        sync_directory(place.beside("."))

    def add(
        self, entries: Mapping[bytes, bytes], *, replace: bool, other: Callable[[bytes], bytes]
    ) -> list[bytes]:
        """Add entries; return the keys that were there already, and kept unless `replace`.

        other: gives the key as it would be stored under the other convention of null bytes.
        Raises `TableError`.
        """

        def put(environment: lmdb.Environment) -> list[bytes]:
            there = []
            with environment.begin(write=True) as transaction:
                for key, value in entries.items():
                    forms = [form for form in (key, other(key)) if form]
                    old = next((f for f in forms if transaction.get(f) is not None), None)
                    if old is not None:
                        there.append(key)
                        if not replace:
                            continue
                        transaction.delete(old)
                    transaction.put(key, value)
            return there

        with self._reported(), Place(self._path) as place:
            fd = self._existing(place)
            if fd is None:
                self._create(place, _sorted_pairs(entries), self._map_size)
                return []
            return self._change(fd, self._map_size, put)

    def delete(self, keys: Sequence[tuple[bytes, ...]]) -> int:
        """Delete entries; each key comes in all forms it may be stored in.  Count what was there.

        Raises `TableError`.
        """

        def drop(environment: lmdb.Environment) -> int:
            count = 0
            with environment.begin(write=True) as transaction:
                for forms in keys:
                    usable = [form for form in forms if 0 < len(form) <= _MAX_KEY]
                    count += any(transaction.delete(form) for form in usable)
            return count

        with self._reported():
            return self._change(safe_open(self._path, os.O_RDWR), self._map_size, drop)

    def _change(self, fd: int, size: int, work: Callable[[lmdb.Environment], T]) -> T:
        """Run one transaction, with a larger map when it does not fit, and close the file."""
        path = f"/proc/self/fd/{fd}"  # LMDB wants a name: this one is that of the file at hand
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            size = max(size, 2 * os.fstat(fd).st_size)
            environment = lmdb.open(path, map_size=size, subdir=False, lock=False, max_dbs=0)
            try:
                while True:
                    try:
                        return work(environment)
                    except lmdb.MapFullError:
                        if size >= _MAX_MAP:
                            raise
                        size *= 2
                        environment.set_mapsize(size)
            finally:
                environment.close()
        finally:
            os.close(fd)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except lmdb.BadValsizeError as error:
            raise TableError(f"table {self.spec}: a key is empty or too long: {error}") from error
        except lmdb.Error as error:
            raise TableError(f"error updating {self.spec}: {error}") from error
        except OSError as error:
            raise TableError(f"open database {self._path}: {error.strerror}") from error


def _sorted_pairs(entries: Mapping[bytes, bytes]) -> list[Pair]:
    # Comparing keys alone is several times faster than comparing pairs.
    return [(key, entries[key]) for key in sorted(entries)]
