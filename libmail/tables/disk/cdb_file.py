"""cdb:/path - constant databases: `/path.cdb`, replaced as a whole by postmap and postalias.

The format is D. J. Bernstein's (cr.yp.to/cdb/cdb.txt). All numbers are 32 bits, little-endian. 256
pairs (position, number of slots) point to hash tables, whose slots are pairs (hash, position of a
record); between the pairs and the tables are the records: length of key and value, key, value.
The hash's low byte says which table, the rest at which slot to begin.

A new file is seen by new processes: `libmail.files.freshness`.  There is no cdb library that both
PyPI and Debian have.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from typing import Final
from weakref import finalize

from libmail.files.durable import sync_directory
from libmail.files.freshness import register
from libmail.files.safe_open import Place, safe_open
from libmail.tables.disk.lmdb_file import to_bytes, to_text
from libmail.tables.table import (
    TableConfigError,
    TableError,
    TableFailed,
    TableOptions,
    key_filter,
    usable_value,
)

__all__ = ["CdbTable", "cdb_path", "open_named", "write_cdb"]

_PAIR: Final = struct.Struct("<II")
_TABLES: Final = 256
_HEADER: Final = _TABLES * _PAIR.size
_LARGEST: Final = 2**32 - 1


def cdb_path(name: str) -> str:
    """Return the path of the file of the table `name`."""
    return f"{name}.cdb"


def _hash(key: bytes) -> int:
    value = 5381
    for octet in key:
        value = ((value << 5) + value ^ octet) & 0xFFFFFFFF
    return value


class CdbFile:
    """One open file."""

    def __init__(self, path: str) -> None:
        """Raises OSError, ValueError for a file that is none of this kind."""
        self.path: Final = path
        self._fd = safe_open(path, os.O_RDONLY)
        try:
            status = os.fstat(self._fd)
            if status.st_size < _HEADER:
                raise ValueError("not a cdb file")
            self._data = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self._fd)
            raise
        finalize(self, os.close, self._fd)
        register(self)

    @property
    def replaced(self) -> bool:
        """Whether the file has lost its name to another one."""
        return os.fstat(self._fd).st_nlink == 0

    def get(self, key: bytes) -> bytes | None:
        """Return the value of the first record with the key. Raises ValueError, struct.error."""
        wanted = _hash(key)
        start, slots = _PAIR.unpack_from(self._data, wanted % _TABLES * _PAIR.size)
        for number in range(slots):
            slot = (wanted // _TABLES + number) % slots
            found, record = _PAIR.unpack_from(self._data, start + slot * _PAIR.size)
            if not record:
                return None
            if found == wanted:
                value = self._value(record, key)
                if value is not None:
                    return value
        return None

    def _value(self, record: int, key: bytes) -> bytes | None:
        key_size, value_size = _PAIR.unpack_from(self._data, record)
        at = record + _PAIR.size
        if key_size != len(key) or self._data[at : at + key_size] != key:
            return None
        value = self._data[at + key_size : at + key_size + value_size]
        if len(value) != value_size:
            raise ValueError("the file is incomplete")
        return value

    def close(self) -> None:
        """Give the memory back."""
        self._data.close()


class CdbTable:
    """A table over a cdb file."""

    pattern = False

    def __init__(self, spec: str, path: str, options: TableOptions) -> None:
        """Raises TableConfigError."""
        self.spec = spec
        self._options = options
        self._ready = key_filter(spec, options)
        try:
            self._file = CdbFile(path)
            return
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError as error:
            reason = str(error)
        raise TableConfigError(f"open database {path}: {reason}")

    async def lookup(self, key: str) -> str | None:
        """Return the value of the key, or None. Raises TableRetry."""
        wanted = self._ready(key)
        if not wanted:
            return None
        data, file = to_bytes(wanted), self._file
        try:
            # Files made with and without null bytes (postmap -N, -n) are both accepted.
            value = file.get(data)
            if value is None:
                value = file.get(data + b"\0")
        except (ValueError, struct.error) as error:
            raise TableFailed(self.spec, str(error)) from error
        if value is None:
            return None
        text = to_text(value)
        return text if text.isascii() else usable_value(self.spec, key, text, self._options)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_named(kind: str, name: str, options: TableOptions) -> CdbTable:
    """Open `cdb:name`; raises TableConfigError."""
    return CdbTable(f"{kind}:{name}", cdb_path(name), options)


def _content(entries: Mapping[bytes, bytes]) -> list[bytes]:
    """The pieces of a file. Raises OverflowError when they are more than 4 GB."""
    records, position = [], _HEADER
    tables: list[list[tuple[int, int]]] = [[] for _ in range(_TABLES)]
    for key, value in entries.items():
        record = _PAIR.pack(len(key), len(value)) + key + value
        hashed = _hash(key)
        tables[hashed % _TABLES].append((hashed, position))
        records.append(record)
        position += len(record)
    pairs, slots = [], []
    for table in tables:
        size = 2 * len(table)
        places: list[tuple[int, int]] = [(0, 0)] * size
        for hashed, record_position in table:
            at = hashed // _TABLES % size
            while places[at][1]:
                at = (at + 1) % size
            places[at] = (hashed, record_position)
        pairs.append(_PAIR.pack(min(position, _LARGEST), size))
        slots += [_PAIR.pack(*place) for place in places]
        position += size * _PAIR.size
    if position > _LARGEST:
        raise OverflowError
    return [*pairs, *records, *slots]


def write_cdb(spec: str, path: str, entries: Mapping[bytes, bytes], mode: int) -> None:
    """Replace the file at path, in one step, by one with these entries. Raises TableError."""
    try:
        with Place(path) as place:
            place.check()
            temporary = place.beside(f"{place.name}.{os.getpid()}.tmp")
            with open(temporary, "xb") as file:
                try:
                    os.fchmod(file.fileno(), mode)
                    file.writelines(_content(entries))
                    file.flush()
                    os.fsync(file.fileno())
                    os.rename(temporary, place.beside(place.name))
                except BaseException:
                    os.unlink(temporary)
                    raise
            sync_directory(place.beside("."))
    except (OverflowError, struct.error):
        raise TableError(f"error updating {spec}: more than 4 GB") from None
    except OSError as error:
        raise TableError(f"open database {path}: {error.strerror}") from error
