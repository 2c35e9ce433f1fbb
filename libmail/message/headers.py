"""The message header (RFC 5322 §2.2): where it ends, and its fields, without copying.

Works on wire form (CRLF). A field is a name of printable characters, perhaps white space (obsolete,
§4.5), a colon and text, with any number of continuation lines. The first line that is not part of
a field ends the header, like the empty line does.
"""

import re
from typing import Final, NamedTuple

__all__ = ["Field", "Scan", "fields", "scan"]

# A field with all of its continuation lines: its name, and what is behind the colon.
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*+\n(?:[ \t][^\n]*+\n)*)")
# The beginning of what may become a field, or a continuation line.
_UNFINISHED: Final = re.compile(rb"[!-9;-~]*[ \t]*(?:\Z|:)|[ \t]")
_LONGEST_NAME: Final = 100_000  # octets in which a field has to show what it is


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


def scan(data: bytes, start: int = 0) -> Scan:
    """The fields of a header of which `data` is the beginning, from the field at `start` on.

    If the result is not complete, its fields are, and the next scan, of more data, begins at its
    end.
    """
    found = fields(data, start)
    end = found[-1].end if found else start
    if end == len(data):
        if found:  # a continuation line may follow
            end = found.pop().start
        return Scan(found, end, False)
    rest = data[end : end + _LONGEST_NAME]
    complete = b"\n" in rest or len(rest) == _LONGEST_NAME or not _UNFINISHED.match(rest)
    if not complete and found:
        end = found.pop().start  # what follows may be a continuation line
    return Scan(found, end, complete)
