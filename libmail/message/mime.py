"""Content taken apart into header fields and body, along its MIME structure (RFC 2046).

A `MimeSplitter` is given the header of a message, then its body in any pieces, all in wire form,
and gives out the same octets in order, each with the kind of place where they stand. Body comes in
large pieces: only lines that begin with "--" are looked at, and none at all outside a multipart.
"""

from collections.abc import Generator, Iterator
from enum import Enum
from typing import Final, NamedTuple

from libmail.message.content_type import PLAIN_TEXT, ContentType, parse_content_type
from libmail.message.headers import Field, fields, scan

__all__ = ["MimeSplitter", "Piece", "Place"]

_MIME_FIELDS: Final = frozenset(
    (b"mime-version", b"content-type", b"content-transfer-encoding", b"content-disposition",
     b"content-description", b"content-id")
)  # fmt: skip
Step = Generator["Piece", None, bool]  # returns whether there may be more to tell
_DIGEST_PART: Final = ContentType(b"message", b"rfc822", b"")  # RFC 2046 §5.1.5
_MAX_HEADER: Final = 1 << 20  # octets of the header of a part; what is larger is none
_MAX_DELIMITER: Final = 8192  # octets of a delimiter line


class Place(Enum):
    """Where octets stand.

    PRIMARY, NESTED: a field of the message, of an attached message. MIME: a field that is about
    MIME, or any one of a part. DELIMITER: a line between parts. BODY: all else.
    """

    PRIMARY = 1
    MIME = 2
    NESTED = 3
    DELIMITER = 4
    BODY = 5


class Piece(NamedTuple):
    """A field, a delimiter line, or some body, with line ends."""

    place: Place
    data: bytes


class _Level(NamedTuple):
    """A multipart. mark: what its delimiter lines begin with."""

    mark: bytes
    digest: bool


class MimeSplitter:
    """One message: `header`, then `feed` as often as needed, then `end`."""

    def __init__(self, *, nesting_limit: int, boundary_limit: int) -> None:
        """nesting_limit: multiparts within others. boundary_limit: octets that count."""
        self._nesting_limit = nesting_limit
        self._boundary_limit = boundary_limit
        self._levels: list[_Level] = []
        self._marks: tuple[bytes, ...] = ()
        self._buffer = b""
        self._place = Place.BODY  # of the fields that may come now; BODY: none
        self._type = PLAIN_TEXT  # of the entity
        self._gap = False  # an empty line is due, between header and body
        self._line_start = True  # of the buffer

    def header(self, data: bytes) -> list[Piece]:
        """The header of the message: its fields; lines that belong to none come as BODY."""
        self._type = PLAIN_TEXT
        found = fields(data)
        pieces = [self._field(data, field, Place.PRIMARY) for field in found]
        end = found[-1].end if found else 0
        if end < len(data):
            pieces.append(Piece(Place.BODY, data[end:]))
        self._end_header()
        return pieces

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What can be told of the body so far."""
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer:
            if self._gap:
                if not (yield from self._take_gap()):
                    return
            elif self._place is not Place.BODY:
                if not (yield from self._take_fields()):
                    return
            elif not self._marks:
                yield self._take(Place.BODY, len(self._buffer))
            elif not (yield from self._take_body()):
                return

    def end(self) -> Iterator[Piece]:
        """What was held back."""
        if self._place is not Place.BODY and not self._gap:
            found = fields(self._buffer)
            for field in found:
                yield self._field(self._buffer, field, self._place)
            if found:
                self._buffer = self._buffer[found[-1].end :]
        if self._buffer:
            yield self._take(Place.BODY, len(self._buffer))

    def _take(self, place: Place, length: int) -> Piece:
        piece = Piece(place, self._buffer[:length])
        self._buffer = self._buffer[length:]
        self._line_start = piece.data.endswith(b"\n")
        return piece

    # headers

    def _field(self, data: bytes, field: Field, place: Place) -> Piece:
        if field.name in _MIME_FIELDS:
            place = Place.MIME
            if field.name == b"content-type":
                self._type = parse_content_type(data[field.value : field.end])
        return Piece(place, data[field.start : field.end])

    def _end_header(self) -> None:
        kind, subtype, boundary = self._type
        self._place = Place.NESTED if self._type.is_message else Place.BODY
        if kind == b"multipart" and boundary and len(self._levels) <= self._nesting_limit:
            mark = b"--" + boundary[: self._boundary_limit]
            self._levels.append(_Level(mark, subtype == b"digest"))
            self._marks = tuple(level.mark for level in self._levels)
        self._gap = True

    def _take_gap(self) -> Step:
        """The empty line behind a header. Without one, no header can follow."""
        if self._buffer == b"\r":
            return False
        self._gap = False
        if self._buffer.startswith(b"\r\n"):
            self._type = PLAIN_TEXT
            yield self._take(Place.BODY, 2)
        else:
            self._place = Place.BODY
        return True

    def _take_fields(self) -> Step:
        found, end, complete = scan(self._buffer)
        for field in found:
            yield self._field(self._buffer, field, self._place)
        self._buffer = self._buffer[end:]
        if complete:
            self._end_header()
            return True
        if len(self._buffer) > _MAX_HEADER:
            self._place = Place.BODY
            return True
        return False

    # body

    def _take_body(self) -> Step:
        """Body up to the next delimiter line, and that line."""
        buffer = self._buffer
        at = 0 if self._line_start else buffer.find(b"\n") + 1
        if at or self._line_start:
            at = self._next_mark(at)
        else:
            at = len(buffer)  # within a line
        if at:
            yield self._take(Place.BODY, at)
        if not self._buffer:
            return False
        end = self._buffer.find(b"\n") + 1
        if end and self._buffer.startswith(self._marks):
            line = self._take(Place.DELIMITER, end)
            self._at_delimiter(line.data)
            yield line
            return True
        if len(self._buffer) > _MAX_DELIMITER:
            self._line_start = False
            return True
        return False

    def _next_mark(self, at: int) -> int:
        """Where a line begins, from the one at `at` on, that is or may become a delimiter."""
        buffer, marks = self._buffer, self._marks
        if buffer.startswith(marks, at):
            return at
        found = buffer.find(b"\n--", at)
        while found >= 0:
            if buffer.startswith(marks, found + 1):
                return found + 1
            found = buffer.find(b"\n--", found + 1)
        last = max(buffer.rfind(b"\n") + 1, at)
        rest = buffer[last : last + _MAX_DELIMITER]
        return last if any(mark.startswith(rest) for mark in marks) else len(buffer)

    def _at_delimiter(self, line: bytes) -> None:
        """The innermost multipart with this delimiter goes on, or ends; those inside of it end."""
        for depth in range(len(self._levels) - 1, -1, -1):
            level = self._levels[depth]
            if line.startswith(level.mark):
                break
        closing = line.startswith(b"--", len(level.mark))
        del self._levels[depth + (not closing) :]
        self._marks = tuple(one.mark for one in self._levels)
        self._place = Place.BODY if closing else Place.MIME
        self._type = _DIGEST_PART if level.digest else PLAIN_TEXT
