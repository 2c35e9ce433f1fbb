"""Content taken apart into header fields and body, along its MIME structure (RFC 2046).

A `MimeSplitter` is given the header of a message, then its body in any pieces, all in wire form,
and gives out the same octets in order, each with the kind of place where they stand. Body comes in
large pieces: only lines that begin with "--" are looked at, and none at all outside a multipart.
Only fields are changed: white space before the colon goes, and one that is too large is cut.

As in the original, all Content-Type fields of a header count: each names boundaries, and the last
one says what the body is.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from libmail.message.content_type import (
    PLAIN_TEXT,
    ContentType,
    parse_content_type,
    parse_encoding,
)
from libmail.message.headers import Batch, Field, HeaderReader, each_field

__all__ = ["STRUCTURE", "MimeLimits", "MimeSplitter", "Piece", "Place"]

_MIME_FIELDS: Final = frozenset(
    (b"mime-version", b"content-type", b"content-transfer-encoding", b"content-disposition",
     b"content-description", b"content-id")
)  # fmt: skip
STRUCTURE: Final = frozenset((b"content-type", b"content-transfer-encoding"))
"""The fields that tell of the body."""
_ENCODINGS: Final = frozenset((b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable"))
_WIDE: Final = (b"8bit", b"binary")
_NARROW: Final = (b"", b"7bit")
Step = Generator["Piece", None, bool]  # returns whether there may be more to tell
_DIGEST_PART: Final = ContentType(b"message", b"rfc822")  # RFC 2046 §5.1.5
_MAX_DELIMITER: Final = 8192  # octets of a delimiter line


class Place(Enum):
    """Where octets stand.

    PRIMARY, NESTED: a field of the message, of an attached message. MIME: a field that is about
    MIME, or any one of a part. END: here, a header has ended; no octets. DELIMITER: a line between
    parts. BODY: all else.
    """

    PRIMARY = 1
    MIME = 2
    NESTED = 3
    END = 4
    DELIMITER = 5
    BODY = 6


class Piece(NamedTuple):
    """A field, a delimiter line, or some body, with line ends."""

    place: Place
    data: bytes


_END: Final = Piece(Place.END, b"")


class MimeLimits(NamedTuple):
    """nesting: mime_nesting_limit, boundaries within others, beside two. boundary: octets of one
    that count, mime_boundary_length_limit. field: header_size_limit. cut: makes of a field without
    its last CRLF what that limit leaves of it."""

    nesting: int
    boundary: int
    field: int
    cut: Callable[[bytes], bytes]


class _Level(NamedTuple):
    """A multipart. mark: what its delimiter lines begin with."""

    mark: bytes
    digest: bool


class MimeSplitter:
    """One message: `fields` and `end_header`, then `feed` as often as needed, then `end`.

    type, encoding: of the entity at hand, as far as its header is known; encoding b"" is 7bit.
    header_place: what its fields are, but for those that are about MIME.
    too_deep: there were more boundaries than mime_nesting_limit allows; those are not followed.
    """

    def __init__(self, limits: MimeLimits, *, whole_global: bool = False) -> None:
        """whole_global: a message/global with 8-bit data is body and nothing else, as it can be
        encoded (RFC 6532 §3.5)."""
        self._whole_global = whole_global
        self.type = PLAIN_TEXT
        self.encoding = b""
        self.header_place = Place.PRIMARY
        self.too_deep = False
        self._limits = limits
        self._levels: list[_Level] = []
        self._marks: tuple[bytes, ...] = ()
        self._data = b""
        self._at = 0  # what is before has been told
        self._place = Place.BODY  # of the fields that may come now; BODY: none
        self._reader = HeaderReader(limits.field)
        self._gap = False  # an empty line is due, between header and body
        self._line_start = True  # at _at

    @property
    def plain(self) -> bool:
        """Whether what follows a header is body and nothing else."""
        return not self._levels and not self._message_follows

    @property
    def _message_follows(self) -> bool:
        return self.type.is_message and not self.whole

    @property
    def whole(self) -> bool:
        """Whether the body at hand would have a header, and is not looked into."""
        return self._whole_global and self.type.is_global and self.wide

    @property
    def wide(self) -> bool:
        """Whether the header at hand declares 8-bit data."""
        return self.encoding in _WIDE

    @property
    def wide_body(self) -> bool:
        """Whether it does so for the text of the body at hand, which belongs to no part of it."""
        return self.encoding in _WIDE and self.type.kind != b"multipart"

    @property
    def narrow_body(self) -> bool:
        """Whether the text of the body at hand is declared to be 7-bit data and not encoded."""
        return self.encoding in _NARROW or self.type.kind == b"multipart"

    def may_go_too_deep(self, header: bytes) -> bool:
        """Whether these fields of the message may name more boundaries than are allowed."""
        return len(self._levels) + header.lower().count(b"boundary") > self._limits.nesting

    def fields(self, data: bytes, found: Iterable[Field]) -> Iterator[Piece]:
        """Some fields of the message."""
        for field in found:
            yield self._field(data, field, Place.PRIMARY)

    def note_type(self, value: bytes) -> None:
        """A Content-Type field of the message, where its other fields do not matter."""
        self._set_type(parse_content_type(value))

    def end_header(self) -> Piece:
        """The message has no more fields."""
        self._end_header()
        return _END

    def header(self, data: bytes) -> Iterator[Piece]:
        """The whole header of the message: its fields; lines that belong to none come as BODY."""
        end = 0
        for field in each_field(data):
            yield self._field(data, field, Place.PRIMARY)
            end = field.end
        if end < len(data):
            yield Piece(Place.BODY, data[end:])
        yield self.end_header()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """What can be told of the body so far."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        while self._at < len(self._data):
            if self._gap:
                if not (yield from self._take_gap()):
                    return
            elif self._place is not Place.BODY:
                yield from self._take_batch(self._reader.feed(self._data, self._at))
            elif not self._marks:
                yield self._take(Place.BODY, len(self._data))
            elif not (yield from self._take_body()):
                return

    def end(self) -> Iterator[Piece]:
        """What was held back."""
        while self._place is not Place.BODY and not self._gap:
            yield from self._take_batch(self._reader.end())
            yield from self.feed(b"")  # what turned out to be no header
        if self._at < len(self._data):
            yield self._take(Place.BODY, len(self._data))

    def _take(self, place: Place, end: int) -> Piece:
        """The octets up to `end`, which is not where they begin."""
        piece = Piece(place, self._data[self._at : end])
        self._at = end
        self._line_start = piece.data.endswith(b"\n")
        return piece

    # headers

    def _take_batch(self, batch: Batch) -> Iterator[Piece]:
        for field in batch.fields:
            yield self._field(batch.data, field, self._place)
        if batch.complete:
            self._data, self._at = batch.data, batch.end
            self._line_start = True
            self._reader = HeaderReader(self._limits.field)
            self._end_header()
            yield _END
        else:
            self._data, self._at = b"", 0

    def _field(self, data: bytes, field: Field, place: Place) -> Piece:
        text = data[field.start : field.end]
        behind = len(field.name) + 1
        if field.value - field.start != behind:  # there is white space before the colon
            text = text[: behind - 1] + b":" + data[field.value : field.end]
        if len(text) > self._limits.field:
            text = self._limits.cut(text[:-2]) + b"\r\n"
        if field.name in _MIME_FIELDS:
            place = Place.MIME
            value = text[behind:]
            if field.name == b"content-type":
                self._set_type(parse_content_type(value))
            elif field.name == b"content-transfer-encoding":
                encoding = parse_encoding(value)
                if encoding in _ENCODINGS:
                    self.encoding = encoding
        return Piece(place, text)

    def _set_type(self, kind: ContentType) -> None:
        self.type = kind
        for boundary in kind.boundaries:
            if len(self._levels) > self._limits.nesting + 1:  # as many as the original follows
                self.too_deep = True
                return
            mark = b"--" + boundary[: self._limits.boundary]
            self._levels.append(_Level(mark, kind.subtype == b"digest"))

    def _end_header(self) -> None:
        self._marks = tuple(level.mark for level in self._levels)
        self._place = Place.NESTED if self._message_follows else Place.BODY
        self._gap = True

    def _begin_header(self, place: Place, kind: ContentType) -> None:
        self._place = place
        if place is not Place.BODY:
            self.header_place = place
        self.type = kind
        self.encoding = b""

    def _take_gap(self) -> Step:
        """The empty line behind a header. Without one, no header can follow."""
        at = self._at
        if self._data.startswith(b"\r\n", at):
            self._gap = False
            yield self._take(Place.BODY, at + 2)
            if self._place is Place.NESTED:
                self._begin_header(Place.NESTED, PLAIN_TEXT)
        elif len(self._data) == at + 1 and self._data[at] == 13:
            return False
        else:
            self._gap = False
            self._place = Place.BODY
        return True

    # body

    def _take_body(self) -> Step:
        """Body up to the next delimiter line, and that line."""
        data = self._data
        at = self._at if self._line_start else data.find(b"\n", self._at) + 1
        found = self._next_mark(at) if at or self._line_start else len(data)
        if found > self._at:
            yield self._take(Place.BODY, found)
        if found == len(data):
            return False
        end = data.find(b"\n", found) + 1
        if end and data.startswith(self._marks, found):
            line = self._take(Place.DELIMITER, end)
            yield line  # still of the part in front of it
            self._at_delimiter(line.data)
            return True
        if len(data) - found > _MAX_DELIMITER:
            self._line_start = False
            return True
        return False

    def _next_mark(self, at: int) -> int:
        """Where a line begins, from the one at `at` on, that is or may become a delimiter."""
        data, marks = self._data, self._marks
        if data.startswith(marks, at):
            return at
        found = data.find(b"\n--", at)
        while found >= 0:
            if data.startswith(marks, found + 1):
                return found + 1
            found = data.find(b"\n--", found + 1)
        last = max(data.rfind(b"\n") + 1, at)
        rest = data[last : last + _MAX_DELIMITER]
        return last if any(mark.startswith(rest) for mark in marks) else len(data)

    def _at_delimiter(self, line: bytes) -> None:
        """The innermost multipart with this delimiter goes on, or ends; those inside of it end."""
        for depth in range(len(self._levels) - 1, -1, -1):
            level = self._levels[depth]
            if line.startswith(level.mark):
                break
        closing = line.startswith(b"--", len(level.mark))
        del self._levels[depth + (not closing) :]
        self._marks = tuple(one.mark for one in self._levels)
        if closing:
            self._begin_header(Place.BODY, PLAIN_TEXT)
        else:
            self._begin_header(Place.MIME, _DIGEST_PART if level.digest else PLAIN_TEXT)
