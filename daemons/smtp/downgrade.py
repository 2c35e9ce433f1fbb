"""8-bit MIME content for a server that takes 7 bits only: quoted-printable, RFC 2045 §6.7.

Only what a header declares as 8bit or binary is converted, entity by entity; what is not declared
stays, as nobody can tell what it is. Used when the server lacks 8BITMIME (RFC 6152 §3).
"""

import re
from typing import Final, NamedTuple

from libmail.message.content_type import PLAIN_TEXT, ContentType, parse_content_type
from libmail.message.headers import Field, fields

__all__ = ["downgrade"]

_MAX_DEPTH: Final = 100  # mime_nesting_limit
_SOFT_AT: Final = 72  # octets of an encoded line, after which it is continued on the next one
_UNSAFE: Final = re.compile(rb"[^\t\x20-<>-~\r\n]|\r(?!\n)")
_LINE_END: Final = re.compile(rb"\r?\n")
_ENCODING: Final = re.compile(rb"\s*(?:8bit|binary)\b", re.I)


class _Entity(NamedTuple):
    """A header taken apart: its fields without the encoding, type, whether it is 8-bit data."""

    header: bytes
    type: ContentType
    wide: bool


def _read(data: bytes, found: list[Field], end: int) -> _Entity:
    kind, wide = PLAIN_TEXT, False
    start, kept = 0, []
    for field in found:
        value = data[field.value : field.end]
        if field.name == b"content-type":
            kind = parse_content_type(value)
        elif field.name == b"content-transfer-encoding" and _ENCODING.match(value):
            wide = True
            kept.append(data[start : field.start])
            start = field.end
    kept.append(data[start:end])
    return _Entity(b"".join(kept), kind, wide)


def downgrade(data: bytes, depth: int = 0) -> bytes:
    """An entity (a message: header and body in wire form) as 7-bit data, if it is MIME."""
    found = list(fields(data))
    end = found[-1].end if found else 0
    entity = _read(data, found, end)
    body = data[end:]
    kind, subtype, boundary = entity.type
    if depth < _MAX_DEPTH and kind == b"multipart" and boundary:
        body = _multipart(body, boundary, depth)
        encoding = b"7bit"
    elif kind == b"message" and subtype not in (b"partial", b"external-body"):
        gap = 2 if body.startswith(b"\r\n") else 0
        body = body[:gap] + downgrade(body[gap:], depth + 1) if depth < _MAX_DEPTH else body
        encoding = b"7bit"
    else:
        if entity.wide:
            gap = 2 if body.startswith(b"\r\n") else 0
            body = body[:gap] + _quoted_printable(body[gap:])
        encoding = b"quoted-printable"
    if not entity.wide:
        return entity.header + body
    return entity.header + b"Content-Transfer-Encoding: " + encoding + b"\r\n" + body


def _multipart(body: bytes, boundary: bytes, depth: int) -> bytes:
    """Each part converted; delimiter lines, preamble and epilogue as they are, RFC 2046 §5.1.1."""
    delimiter = re.compile(rb"(?m)^--%s(--)?[ \t]*\r?(?:\n|\Z)" % re.escape(boundary))
    out, at, inside = [], 0, False
    for match in delimiter.finditer(body):
        part = body[at : match.start()]
        out.append(downgrade(part, depth + 1) if inside else part)
        out.append(match[0])
        at = match.end()
        inside = match[1] is None
        if not inside:
            break
    rest = body[at:]
    out.append(downgrade(rest, depth + 1) if inside else rest)
    return b"".join(out)


def _quoted_printable(data: bytes) -> bytes:
    encoded = _UNSAFE.sub(lambda match: b"=%02X" % match[0][0], data)
    lines = _LINE_END.split(encoded)
    last = lines.pop()
    return b"\r\n".join([*map(_hard_line, lines), _hard_line(last) if last else b""])


def _hard_line(line: bytes) -> bytes:
    """A line with soft breaks; white space at its end is encoded."""
    pieces, start = [], 0
    while len(line) - start > _SOFT_AT + 1:
        cut = start + _SOFT_AT + 1
        # Not within "=XX".
        if (escape := line.find(b"=", cut - 2, cut)) >= 0:
            cut = escape + 3
        if cut >= len(line):
            break
        pieces.append(line[start:cut])
        start = cut
    rest = line[start:]
    if rest.endswith((b" ", b"\t")):
        rest = rest[:-1] + b"=%02X" % rest[-1]
    pieces.append(rest)
    return b"=\r\n".join(pieces)
