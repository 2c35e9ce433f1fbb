"""LMDB files that a daemon changes entry by entry: caches, and what proxywrite(8) serves.

The file is that of libmail.tables.disk.lmdb_file; postmap reads it. A change is on disk when
`update` returns; those that come while the disk is busy wait together, and become one transaction:
when thousands of clients leave at once that takes a few writes, not thousands. All work is done in
one thread of the table: the disk and the locks of others never stop the event loop, and as LMDB's
lock file is not used, nobody may read while the same process writes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, lockf
from threading import Lock
from typing import Final, TypeVar

import lmdb

from libmail.config.core import Config
from libmail.files.freshness import register
from libmail.privileges import acting_as, identity_of
from libmail.tables.disk.lmdb_file import database_path, to_bytes, to_text
from libmail.tables.table import TableConfigError, TableFailed, TableOptions, key_filter
from libmail.tables.worker import Worker

__all__ = ["LmdbCache", "open_writable"]

_BATCH: Final = 500  # entries read in one go
_MOST_WAITING: Final = 1 << 16  # lookups, and changes, that wait for the disk
_MAX_KEY: Final = 511  # octets, LMDB's limit, with the null byte
_MAX_MAP: Final = 1 << 40

R = TypeVar("R")
Pair = tuple[bytes, bytes]
Change = tuple[bytes, bytes | None]  # None: the key is removed


class _Batch:
    """Changes that become one transaction. done: whether each key was there."""

    __slots__ = ("changes", "done")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.done: asyncio.Task[list[bool]] | None = None


class LmdbCache:
    """A table over an LMDB file that this process changes."""

    pattern = False

    def __init__(self, spec: str, path: str, options: TableOptions) -> None:
        """Open the file, or make it. Raises OSError, lmdb.Error."""
        self.spec = spec
        self.path = path
        self._ready = key_filter(spec, options)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._size = max(options.map_size, 2 * os.fstat(self._fd).st_size)
            with _locked(self._fd, LOCK_EX):
                self._environment = lmdb.open(
                    path, subdir=False, lock=False, map_size=self._size, max_dbs=0
                )
        except BaseException:
            os.close(self._fd)
            raise
        self._worker: Worker[None] = Worker(spec, lambda: None, waiting=_MOST_WAITING)
        self._lock = Lock()  # held for the two fields below, for an instant
        self._waiting: _Batch | None = None  # further changes can be added to it
        self._tasks: set[asyncio.Task[list[bool]]] = set()
        register(self)

    @property
    def replaced(self) -> bool:
        """True: the file has lost its name."""
        return os.fstat(self._fd).st_nlink == 0

    async def lookup(self, key: str) -> str | None:
        """Return the value of the key, or None. Raises TableRetry."""
        data = self._stored(key)
        if data is None:
            return None
        value = await self._read(lambda transaction: transaction.get(data))
        return None if value is None else to_text(bytes(value))

    async def update(self, key: str, value: str) -> None:
        """Set the value of a key. Raises TableRetry."""
        data = self._stored(key)
        if data is None:
            raise TableFailed(self.spec, f"cannot store the key {key[:100]!r}")
        await self._change(data, to_bytes(value) + b"\0")

    async def update_many(self, entries: Mapping[str, str]) -> Sequence[str]:
        """Set the values of keys, in one transaction; returns those that cannot be stored.

        Raises TableRetry.
        """
        changes: list[Pair] = []
        odd = []
        for key, value in entries.items():
            data = self._stored(key)
            if data is None:
                odd.append(key)
            else:
                changes.append((data, to_bytes(value) + b"\0"))

        def put(transaction: lmdb.Transaction) -> None:
            for data, value in changes:
                transaction.put(data, value)

        await self._write(put)
        return odd

    async def delete(self, key: str) -> bool:
        """Remove a key; tell whether it was there. Raises TableRetry."""
        data = self._stored(key)
        if data is None:
            return False
        return await self._change(data, None)

    async def delete_many(self, keys: Sequence[str], stale: Callable[[str, str], bool]) -> int:
        """Remove the entries that are stale, key and value, when their turn comes; count them.

        stale: is called in another thread. Raises TableRetry.
        """
        stored = [data for key in keys if (data := self._stored(key)) is not None]

        def drop(transaction: lmdb.Transaction) -> int:
            count = 0
            for data in stored:
                value = transaction.get(data)
                if value is not None and stale(to_text(data), to_text(bytes(value))):
                    count += transaction.delete(data)
            return count

        return await self._write(drop)

    async def listing(self) -> AsyncIterator[tuple[str, str]]:
        """Give all entries, in the order of their bytes. Raises TableRetry."""
        after = b""
        while batch := await self._read(lambda transaction: _some(transaction, after)):  # noqa: B023
            for key, value in batch:
                yield to_text(key), to_text(value)
            after = batch[-1][0]

    def _stored(self, key: str) -> bytes | None:
        """The key as it is in the file; None for one that cannot be there."""
        wanted = self._ready(key)
        data = to_bytes(wanted or "") + b"\0"
        return data if 1 < len(data) <= _MAX_KEY else None

    async def _change(self, data: bytes, value: bytes | None) -> bool:
        """Make a change, together with those that wait; whether it did something."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return await self._write(lambda transaction: _put(transaction, data, value))
        with self._lock:
            batch = self._waiting
            if batch is None:
                batch = self._waiting = _Batch()
            at = len(batch.changes)
            if at >= _MOST_WAITING:
                raise TableFailed(self.spec, "too many changes are waiting")
            batch.changes.append((data, value))
        if batch.done is None:
            batch.done = loop.create_task(self._commit(batch))
            self._tasks.add(batch.done)
            batch.done.add_done_callback(self._committed)
        # Whoever gives up does not take the changes of others along.
        return (await asyncio.shield(batch.done))[at]

    async def _commit(self, batch: _Batch) -> list[bool]:
        def apply(transaction: lmdb.Transaction) -> list[bool]:
            with self._lock:
                if self._waiting is batch:
                    self._waiting = None
            return [_put(transaction, data, value) for data, value in batch.changes]

        try:
            return await self._write(apply)
        finally:
            if self._waiting is batch:  # it did not come to that
                self._waiting = None

    def _committed(self, task: asyncio.Task[list[bool]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to those who wait, if any still do

    async def _read(self, work: Callable[[lmdb.Transaction], R]) -> R:
        return await self._worker.run(lambda _: self._transaction(work, LOCK_SH))

    async def _write(self, work: Callable[[lmdb.Transaction], R]) -> R:
        return await self._worker.run(lambda _: self._transaction(work, LOCK_EX))

    def _transaction(self, work: Callable[[lmdb.Transaction], R], lock: int) -> R:
        """Called in the thread. Raises TableRetry."""
        try:
            with _locked(self._fd, lock):
                while True:
                    try:
                        with self._environment.begin(write=lock == LOCK_EX) as transaction:
                            return work(transaction)
                    except lmdb.MapResizedError:  # by another process
                        self._environment.set_mapsize(0)
                    except lmdb.MapFullError:
                        if self._size >= _MAX_MAP:
                            raise
                        self._size *= 2
                        self._environment.set_mapsize(self._size)
        except (OSError, lmdb.Error) as error:
            raise TableFailed(self.spec, str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self._worker.close()
        self._environment.close()
        os.close(self._fd)


def _put(transaction: lmdb.Transaction, data: bytes, value: bytes | None) -> bool:
    return transaction.delete(data) if value is None else transaction.put(data, value)


def _some(transaction: lmdb.Transaction, after: bytes) -> list[Pair]:
    cursor = transaction.cursor()
    found = cursor.set_range(after) if after else cursor.first()
    if found and cursor.key() == after:
        found = cursor.next()
    pairs: list[Pair] = []
    while found and len(pairs) < _BATCH:
        pairs.append((bytes(cursor.key()), bytes(cursor.value())))
        found = cursor.next()
    return pairs


@contextmanager
def _locked(fd: int, lock: int) -> Iterator[None]:
    lockf(fd, lock)
    try:
        yield
    finally:
        lockf(fd, LOCK_UN)


def open_writable(kind: str, name: str, options: TableOptions) -> LmdbCache:
    """Open `lmdb:name`, as `mail_owner` where this process is still root.

    Whoever may write in the directory of a cache must not make root write elsewhere.
    Raises TableConfigError.
    """
    path = database_path(name)
    try:
        with acting_as(identity_of(owner)) if (owner := _owner(options.config)) else nullcontext():
            return LmdbCache(f"{kind}:{name}", path, options)
    except (OSError, lmdb.Error, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TableConfigError(f"open database {path}: {reason}") from error


def _owner(config: Config) -> str:
    """Whom to act as; "": nobody else."""
    return config.text("mail_owner") if os.geteuid() == 0 else ""
