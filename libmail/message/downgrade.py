"""8-bit MIME content as 7-bit data: quoted-printable, RFC 2045 §6.7.

Only what a header declares as 8bit or binary is converted, entity by entity; what is not declared
stays, as nobody can tell what it is. For servers without 8BITMIME (RFC 6152 §3).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from libmail.message.headers import Field
from libmail.message.mime import MimeLimits, MimeSplitter, Piece, Place

__all__ = ["Downgrade", "LineEdits"]

_SOFT_AT: Final = 72  # octets of an encoded line, after which it is continued on the next one
_UNSAFE: Final = re.compile(rb"[^\t\x20-<>-~\r\n]|\r(?!\n)")
_LINE_END: Final = re.compile(rb"\r?\n")
_CODES: Final = {bytes((octet,)): b"=%02X" % octet for octet in range(256)}
_ENCODING: Final = b"content-transfer-encoding"

Edit = Callable[[bytes], bytes]


class LineEdits:
    """Applies edits, which are made for whole lines, to content that comes in any pieces."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits = tuple(edits)
        self._kept: list[bytes] = []

    def feed(self, piece: bytes) -> bytes:
        """The lines that are complete with this piece."""
        cut = piece.rfind(b"\n") + 1
        if not cut:
            if piece:
                self._kept.append(piece)
            return b""
        lines = b"".join((*self._kept, piece[:cut]))
        self._kept = [piece[cut:]] if cut < len(piece) else []
        return self._edit(lines)

    def end(self) -> bytes:
        """The last line, if it has no end."""
        lines, self._kept = b"".join(self._kept), []
        return self._edit(lines)

    def _edit(self, lines: bytes) -> bytes:
        if lines:
            for edit in self._edits:
                lines = edit(lines)
        return lines


class Downgrade:
    """One message: its header, then its body in any pieces, then the end; all in wire form.

    splitter: what takes the message apart; see `pieces`.
    """

    def __init__(self, limits: MimeLimits) -> None:
        self.splitter: Final = MimeSplitter(limits, whole_global=True)
        self._lines = LineEdits((_quoted_printable,))

    def header(self, data: bytes) -> bytes:
        """The header of the message."""
        return self._converted(self.splitter.header(data))

    def fields(self, data: bytes, found: Iterable[Field]) -> bytes:
        """Some fields of the message header, where it comes in batches; then `end_header`."""
        return self._converted(self.splitter.fields(data, found))

    def end_header(self) -> bytes:
        """The message has no more fields."""
        return self._piece(*self.splitter.end_header())

    def feed(self, data: bytes) -> bytes:
        """What can be told of the body now."""
        return self._converted(self.splitter.feed(data))

    def end(self) -> bytes:
        """The rest."""
        return self._converted(self.splitter.end()) + self.rest().data

    def _converted(self, pieces: Iterable[Piece]) -> bytes:
        return b"".join([self._piece(*piece) for piece in pieces])

    def pieces(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """What becomes of pieces of the splitter, for those who have a use for their places; then
        `rest`."""
        for place, data in pieces:
            converted = self._piece(place, data)
            if place is not Place.END:
                if converted:
                    yield Piece(place, converted)
                continue
            if converted:
                yield Piece(self.splitter.header_place, converted)
            yield Piece(place, b"")

    def rest(self) -> Piece:
        """The last line of the body, if it has no end."""
        return Piece(Place.BODY, self._lines.end())

    def _piece(self, place: Place, data: bytes) -> bytes:
        """A field that comes at the end of a header is what becomes of that."""
        splitter = self.splitter
        if place is Place.BODY:
            return self._lines.feed(data) if splitter.wide_body else data
        if place is Place.END:
            if not splitter.wide:
                return b""
            parts = splitter.type.is_composite and not splitter.whole
            encoding = b"7bit" if parts else b"quoted-printable"
            return b"Content-Transfer-Encoding: " + encoding + b"\r\n"
        if place is Place.MIME and splitter.wide and _is_encoding(data):
            return b""  # another one stands at the end of the header
        return data


def _is_encoding(field: bytes) -> bool:
    return field[: len(_ENCODING)].lower() == _ENCODING


def _quoted_printable(data: bytes) -> bytes:
    encoded = _UNSAFE.sub(lambda match: _CODES[match[0]], data)
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
