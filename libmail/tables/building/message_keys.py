"""The lookup keys that a message has for header_checks and body_checks (postmap -h, -b, -m).

A header with its continuation lines is one key, as is each body line.  With MIME parsing, the
headers of parts and of attached messages are header keys, too; without it they are body lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["BODY", "HEADER", "message_keys"]

HEADER: Final = "header"
BODY: Final = "body"
_MAX_NESTING: Final = 100  # multiparts within multiparts

_FIELD: Final = re.compile(r"[!-9;-~]+[ \t]*:")
_TYPE: Final = re.compile(r"content-type[ \t]*:\s*([^\s;/]+)/([^\s;]+)", re.IGNORECASE)
_BOUNDARY: Final = re.compile(
    r';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE
)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)


class _Parser:
    """Where in the message a line is."""

    def __init__(self, mime: bool) -> None:
        self._mime = mime
        self._boundaries: list[tuple[str, str]] = []  # text, type of the parts by default
        self._in_header = True
        self._first_block = True
        self._field: list[str] = []
        self._type = "text/plain"

    def line(self, text: str) -> Iterator[tuple[str, str]]:
        """Give the keys that this line completes."""
        if self._mime and text.startswith("--") and self._is_boundary(text[2:]):
            yield from self._flush()
            yield BODY, text
            self._at_boundary(text[2:])
        elif not self._in_header:
            yield BODY, text
        elif self._field and text[:1] in (" ", "\t"):
            self._field.append(text)
        elif _FIELD.match(text):
            yield from self._flush()
            self._field.append(text)
        else:
            yield from self._end_header(text)

    def end(self) -> Iterator[tuple[str, str]]:
        """Give the key that the end of the message completes."""
        return self._flush()

    def _flush(self) -> Iterator[tuple[str, str]]:
        if not self._field:
            return
        field = "\n".join(self._field)
        self._field.clear()
        if match := _TYPE.match(field):
            self._type = f"{match.group(1)}/{match.group(2)}".lower()
            if self._type.startswith("multipart/") and (found := _BOUNDARY.search(field)):
                self._push(_PAIR.sub(r"\1", found.group(1) or found.group(2) or ""))
        yield HEADER, field

    def _push(self, boundary: str) -> None:
        if len(self._boundaries) < _MAX_NESTING:
            inner = "message/rfc822" if self._type == "multipart/digest" else "text/plain"
            self._boundaries.append((boundary, inner))

    def _end_header(self, text: str) -> Iterator[tuple[str, str]]:
        yield from self._flush()
        if text and self._first_block:
            yield BODY, ""  # a header without its empty line ends as if it had one
        self._first_block = False
        self._in_header = self._mime and not text and self._type == "message/rfc822"
        self._type = "text/plain"
        yield BODY, text

    def _is_boundary(self, text: str) -> bool:
        return any(text.startswith(boundary) for boundary, _ in self._boundaries)

    def _at_boundary(self, text: str) -> None:
        while not text.startswith(self._boundaries[-1][0]):
            self._boundaries.pop()
        boundary, self._type = self._boundaries[-1]
        self._in_header = not text[len(boundary) :].startswith("--")
        self._first_block = False
        if not self._in_header:
            self._boundaries.pop()


def message_keys(lines: Iterable[str], *, mime: bool) -> Iterator[tuple[str, str]]:
    """Give (HEADER or BODY, key) for the lines of a message, which come without line ends."""
    parser = _Parser(mime)
    for text in lines:
        yield from parser.line(text)
    yield from parser.end()
