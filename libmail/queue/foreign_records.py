"""The records of a queue file of the original Postfix, without I/O.

A file is a sequence of records: a type, which is one letter; the length of the data, seven bits an
octet, the lowest first, the high bit set in all octets but the last; the data. `postcat -d` of
Postfix shows types and what they are called. The sections of a file:

    envelope    up to `MESSAGE`: times, attributes, sender, recipients
    content     up to `EXTRACTED`: a record for a line without its line end (`TEXT`), or for the
                beginning of one (`TEXT_PART`)
    extracted   up to `END`: what was only known after the content, more recipients among it

A Milter's changes are appended, and reached by a record that says where to read on (`POINTER`);
what they replace is skipped in the same way, or overwritten with `PADDING`.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

__all__ = [
    "END",
    "EXTRACTED",
    "MESSAGE",
    "TEXT",
    "TEXT_PART",
    "ForeignFileError",
    "ReadAt",
    "Record",
    "records",
]

ReadAt = Callable[[int, int], bytes]
"""As pread(2): the octets at an offset, at most so many, fewer only at the end of the file."""

MESSAGE: Final = "M"
EXTRACTED: Final = "X"
END: Final = "E"
TEXT: Final = "N"
TEXT_PART: Final = "L"
_POINTER: Final = "p"

_WINDOW: Final = 1 << 16
_MAX_DATA: Final = 1 << 24
_MAX_LENGTH_OCTETS: Final = 5


class ForeignFileError(Exception):
    """The file is not what a Postfix leaves behind; the text says why."""


class Record(NamedTuple):
    """kind: the type, a letter. offset: of the record in the file."""

    kind: str
    offset: int
    data: bytes


def records(read: ReadAt, size: int, *, follow: bool = True) -> Iterator[Record]:
    """All records up to and with `END`, in the order in which they are meant.

    size: of the file. follow: pointers; otherwise they are given out, and the order is that of the
    file, to its end. Raises ForeignFileError, after records that are right, and what `read` does.
    No octet is read twice on purpose, so that pointers cannot make a loop.
    """
    window, start, at, left = b"", 0, 0, size
    while follow or at < size:
        found = _record(window, start, at)
        if found is None:  # the window does not hold all of it
            window, start = read(at, _WINDOW), at
            found = _record(window, start, at)
            if found is None:
                window = read(at, _needed(window, at))
                found = _record(window, start, at)
        if found is None:
            raise ForeignFileError(f"record at offset {at} is cut off")
        record, after = found
        left -= after - at
        if left < 0:
            raise ForeignFileError("pointers make a loop")
        at = after
        if record.kind == _POINTER and follow:
            at = _target(record) or after
            continue
        yield record
        if record.kind == END and follow:
            return


def _record(window: bytes, start: int, at: int) -> tuple[Record, int] | None:
    """The record at offset `at`, and where the next one begins; None if it is cut off.

    start: the offset of the window in the file.
    """
    here = at - start
    if here < 0 or here + 2 > len(window):
        return None
    length = window[here + 1]
    data = here + 2
    if length & 0x80:
        found = _long_length(window, here + 1)
        if found is None:
            return None
        length, data = found
    end = data + length
    if end > len(window):
        return None
    return Record(chr(window[here]), at, window[data:end]), start + end


def _long_length(window: bytes, at: int) -> tuple[int, int] | None:
    """A length of several octets, and where the data begins; None if it is cut off."""
    length = 0
    for index, octet in enumerate(window[at : at + _MAX_LENGTH_OCTETS]):
        length |= (octet & 0x7F) << 7 * index
        if not octet & 0x80:
            return length, at + index + 1
    if len(window) < at + _MAX_LENGTH_OCTETS:
        return None
    raise ForeignFileError("record length of too many octets")


def _needed(window: bytes, at: int) -> int:
    """The size of the record that begins the window."""
    found = _long_length(window, 1) if len(window) > 1 else None
    if found is None:
        raise ForeignFileError(f"unexpected end of file at offset {at}")
    length, data = found
    if length > _MAX_DATA:
        raise ForeignFileError(f"record at offset {at} has {length} octets")
    return data + length


def _target(record: Record) -> int:
    """Where a pointer points; 0 for one that is not in use."""
    try:
        target = int(record.data)
    except ValueError:
        target = -1
    if target < 0:
        raise ForeignFileError(f"bad pointer at offset {record.offset}")
    return target
