"""What postcat(1) prints of a queue file of an original Postfix: its records."""

import os
import time
from collections.abc import Iterator
from typing import Final

from commands.postcat.entries import Entry, Part, marker
from libmail.queue.foreign_records import (
    END,
    EXTRACTED,
    MESSAGE,
    TEXT,
    TEXT_PART,
    ForeignFileError,
    Record,
    records,
)

__all__ = ["original_entries"]

_LABELS: Final = {
    "C": "message_size",
    "T": "message_arrival_time",
    "c": "queue_file_create_time",
    "W": "warning_message_time",
    "A": "named_attribute",
    "F": "sender_fullname",
    "I": "content_inspector",
    "L": "content_filter",
    "S": "sender",
    "D": "done_recipient",
    "R": "recipient",
    "O": "original_recipient",
    "/": "canceled_recipient",
    "K": "killed_record",
    ">": "redirect_to",
    "f": "flags",
    "r": "return_receipt",
    "e": "errors_to",
    "P": "priority",
    "V": "verp_delimiters",
    "<": "dsn_return_flags",
    "i": "dsn_envelope_id",
    "o": "dsn_original_recipient",
    "n": "dsn_notify_flags",
    "p": "pointer_record",
    "w": "padding",
}
_INNER: Final = ("p", "w")
_TIMES: Final = ("T", "c", "W")
_TITLES: Final = {
    MESSAGE: "MESSAGE CONTENTS",
    EXTRACTED: "HEADER EXTRACTED",
    END: "MESSAGE FILE END",
}
_NAME: Final = frozenset(range(33, 127)) - {ord(":")}


def original_entries(fd: int, name: str, *, follow: bool, by_line: bool) -> Iterator[Entry]:
    """All of a file. Raises ForeignFileError, OSError.

    follow: pointers. by_line: parts of lines are printed as lines.
    """

    def read(offset: int, size: int) -> bytes:
        return os.pread(fd, size, offset)

    found = records(read, os.fstat(fd).st_size, follow=follow)
    first = next(found, None)
    if first is None or first.kind not in ("C", "T"):
        raise ForeignFileError("not a Postfix queue file")
    yield marker(0, "", "ENVELOPE RECORDS", name)
    yield _envelope(first)
    part = Part.ENVELOPE
    starts_line = True
    for record in found:
        if record.kind in _TITLES:
            yield marker(record.offset, record.kind, _TITLES[record.kind], name)
            part = Part.HEADER if record.kind == MESSAGE else Part.ENVELOPE
        elif part != Part.ENVELOPE and record.kind in (TEXT, TEXT_PART):
            if part == Part.HEADER and starts_line and not _is_header(record.data):
                part = Part.BODY
            starts_line = record.kind == TEXT
            whole = starts_line or by_line
            yield Entry(part, record.offset, record.kind, record.data, whole_line=whole)
        else:
            yield _envelope(record)


def _is_header(line: bytes) -> bool:
    """Whether a line belongs to a header."""
    field, colon, _ = line.partition(b":")
    return line[:1] in (b" ", b"\t") or bool(colon and field and _NAME.issuperset(field.rstrip()))


def _envelope(record: Record) -> Entry:
    label = _LABELS.get(record.kind, "unknown_record_type")
    text = record.data
    if record.data.startswith(b"create_time="):
        label, text = "create_time", _date(text.partition(b"=")[2])
    elif record.kind in _TIMES:
        text = _date(text)
    text = label.encode() + b": " + text
    return Entry(Part.ENVELOPE, record.offset, record.kind, text, inner=record.kind in _INNER)


def _date(text: bytes) -> bytes:
    """The time that the text begins with, in seconds; the text where there is none."""
    seconds = text.split()[:1]
    if not seconds or not seconds[0].isdigit() or len(seconds[0]) > 11:
        return text
    return time.ctime(int(seconds[0])).encode()
