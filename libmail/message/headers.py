"""The message header (RFC 5322 §2.2): where it ends, and its fields, without copying.

Works on wire form (CRLF). A field is a name of printable characters, perhaps white space (obsolete,
§4.5), a colon and text, with any number of continuation lines. The first line that is not part of
a field ends the header, like the empty line does.

`scan` looks at what is there. `HeaderReader` takes a header in any pieces: it looks at each octet a
bounded number of times, and keeps no more of a field than header_size_limit asks for.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

__all__ = ["Batch", "Field", "HeaderReader", "Scan", "cut_behind_piece", "cut_field",
           "each_field", "fields", "scan", "with_cut_fields"]  # fmt: skip

# A field with all of its continuation lines: its name, and what is behind the colon. A name that
# does not fit into a line with its colon (line_length_limit) makes no field.
_FIELD: Final = re.compile(rb"([!-9;-~]{1,2047})[ \t]{0,2048}:([^\n]*+\n(?:[ \t][^\n]*+\n)*)")
# The beginning of what may become a field.
_UNFINISHED: Final = re.compile(rb"[!-9;-~]{0,2047}[ \t]{0,2048}\Z|[!-9;-~]{1,2047}[ \t]{0,2048}:")
_ENDED: Final = re.compile(rb"\n[^ \t]")  # a line, and no continuation


class Field(NamedTuple):
    """One field of a header.

    name: in lower case. start, end: of the whole field with its last CRLF. value: where the text
    behind the colon begins.
    """

    name: bytes
    start: int
    value: int
    end: int


class Scan(NamedTuple):
    """What `scan` found. end: where `fields` end. complete: no more fields can follow."""

    fields: list[Field]
    end: int
    complete: bool


def fields(data: bytes, start: int = 0) -> list[Field]:
    """The fields from `start` to the first line that belongs to none."""
    match = _FIELD.match
    found: list[Field] = []
    while (field := match(data, start)) is not None:
        end = field.end()
        found.append(Field(field[1].lower(), start, field.start(2), end))
        start = end
    return found


def each_field(data: bytes) -> Iterator[Field]:
    """The same one by one: a whole header, of which nobody knows the size, can have millions."""
    start = 0
    while (field := _FIELD.match(data, start)) is not None:
        yield Field(field[1].lower(), start, field.start(2), field.end())
        start = field.end()


def scan(data: bytes, start: int = 0) -> Scan:
    """The fields of a header that begins at `start`, and of which `data` may not be all.

    If the result is not complete, its fields are, and what is behind its end belongs to the next
    field, or is the line that ends the header.
    """
    found = fields(data, start)
    end = found[-1].end if found else start
    if data.find(b"\n", end) >= 0:
        return Scan(found, end, True)
    rest = data[end:]
    if not rest or rest[0] in b" \t":
        if not found:
            return Scan(found, end, bool(rest))
        end = found.pop().start  # which goes on, or may do so
        return Scan(found, end, False)
    return Scan(found, end, rest != b"\r" and _UNFINISHED.match(rest) is None)


class Batch(NamedTuple):
    """What `HeaderReader` found: `fields` of `data`, which end at `end`.

    complete: the header has ended, the rest of `data` is what follows it.
    """

    data: bytes
    fields: list[Field]
    end: int
    complete: bool


_NOTHING: Final = Batch(b"", [], 0, False)


class HeaderReader:
    """Finds the fields of a header in pieces: `feed` until a batch is complete, or else `end`.

    What is kept is the field, or the line, that has not ended. Of a field that is too large no more
    is given out than shows that it is; it is to be cut by whoever writes it.
    """

    __slots__ = ("_held", "_line_ended", "_looked", "_most", "_skipping")

    def __init__(self, size_limit: int) -> None:
        """size_limit: octets of a field that count, whatever its line ends are."""
        self._most = 2 * size_limit + 16384  # more than any name
        self._held = bytearray()
        self._looked = 0  # octets of these in which the field does not end
        self._skipping = False  # what comes belongs to a field that is held already
        self._line_ended = False  # while skipping

    def feed(self, data: bytes, start: int = 0) -> Batch:
        """The next piece, from `start` on."""
        if self._skipping:
            data, start = self._skip(data[start:]), 0
            if self._skipping:
                return _NOTHING
        elif self._held:
            held = self._held
            held += data[start:] if start else data
            if len(held) <= self._most and _ENDED.search(held, self._looked) is None:
                self._looked = len(held) - 1
                return _NOTHING
            data, start = bytes(held), 0
            self._held = bytearray()
        found, end, complete = scan(data, start)
        if not complete:
            self._hold(data, end)
        return Batch(data, found, end, complete)

    def _hold(self, data: bytes, start: int) -> None:
        length = len(data) - start
        self._held = bytearray(data[start : start + self._most])
        self._looked = max(length - 1, 0)
        if length > self._most:
            self._skipping = True
            self._line_ended = data.endswith(b"\n")

    def _skip(self, data: bytes) -> bytes:
        """What follows the large field, behind what is to be seen of it."""
        if not data:
            return data
        if self._line_ended and data[0] not in b" \t":
            end = 0
        elif found := _ENDED.search(data):
            end = found.start() + 1
        else:
            self._line_ended = data.endswith(b"\n")
            return b""
        return self._shortened() + data[end:]

    def _shortened(self) -> bytes:
        """The large field, which has ended."""
        self._skipping = False
        held, self._held = self._held, bytearray()
        return bytes(held.rstrip(b"\r\n")) + b"\r\n"

    def end(self) -> Batch:
        """There is no more: the header is what it is."""
        if self._skipping:
            data = self._shortened()
        else:
            data, self._held = bytes(self._held), bytearray()
        ended = data if data.endswith(b"\n") else data + b"\r\n"
        found = fields(ended)
        end = found[-1].end if found else 0
        return Batch(ended if end == len(ended) else data, found, end, True)


def cut_field(text: bytes, size_limit: int) -> bytes:
    """A field, without its last CRLF, cut at header_size_limit. A line end counts as one octet."""
    if len(text) <= size_limit:
        return text
    lines = text[: 2 * size_limit + 1].replace(b"\r\n", b"\n")
    if len(lines) <= size_limit:
        return text
    return lines[:size_limit].rstrip(b"\r\n").replace(b"\n", b"\r\n")


def cut_behind_piece(text: bytes, size_limit: int, line_limit: int) -> bytes:
    """As `cut_field`, behind the piece of a line that reaches the limit.

    So does the original with mail that leaves: it reads lines in pieces of line_length_limit octets
    and adds pieces until header_size_limit is reached.
    """
    if len(text) <= size_limit:
        return text
    lines = text[: 2 * (size_limit + line_limit)].replace(b"\r\n", b"\n")
    if len(lines) <= size_limit:
        return text
    last = size_limit - 1  # the piece with this octet is the last one
    start = lines.rfind(b"\n", 0, size_limit) + 1
    end = lines.find(b"\n", max(start, size_limit))
    whole = start + (max(last - start, 0) // line_limit + 1) * line_limit
    end = min(len(lines) if end < 0 else end, whole)
    return lines[:end].rstrip(b"\r\n").replace(b"\n", b"\r\n")


def with_cut_fields(header: bytes, size_limit: int, cut: Callable[[bytes], bytes]) -> bytes:
    """A header whose fields of more octets than the limit are cut."""
    pieces, at = [], 0
    for field in each_field(header) if len(header) > size_limit else ():
        if field.end - field.start > size_limit:
            pieces += [header[at : field.start], cut(header[field.start : field.end - 2]), b"\r\n"]
            at = field.end
    return b"".join((*pieces, header[at:])) if pieces else header
