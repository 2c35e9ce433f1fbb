"""The headers of parts and attached messages, where no table looks at them.

As in the header of the message, white space before a colon goes, and a field that is too large is
cut. In nearly all mail there is nothing of that: of a body in which no field can be too large, and
that has no line with such a colon, the parts are not looked for.
"""

import asyncio
from collections.abc import Iterable
from itertools import chain
from typing import Final

from libmail.message.mime import MimeLimits, MimeSplitter, Piece
from libmail.text.search import contains

__all__ = ["PartHeaders"]

_AT_ONCE: Final = 500  # pieces, after which other sessions have their turn
_MOST_HELD: Final = 1 << 17  # octets of a body until it is clear what it is

_has_blank_before_colon: Final = contains(rb"\n[!-9;-~]+[ \t]+:")
"""Whether a line could be a field with white space behind its name."""


class PartHeaders:
    """One message: its Content-Type fields, `end_header`, then its body in any pieces."""

    def __init__(self, limits: MimeLimits) -> None:
        self._splitter = MimeSplitter(limits)
        self._held: list[bytes] | None = []  # the body, while it is small
        self._most = min(limits.field, _MOST_HELD)

    def note_type(self, value: bytes) -> None:
        """What is behind the colon of a Content-Type field of the message."""
        self._splitter.note_type(value)

    def end_header(self) -> bool:
        """Whether there may be other headers."""
        self._splitter.end_header()
        return not self._splitter.plain

    async def body(self, data: bytes) -> bytes:
        """What to write of the body now."""
        held = self._held
        if held is not None:
            held.append(data)
            self._most -= len(data)
            if self._most >= 0:
                return b""
            data, self._held = b"".join(held), None
        return await self._joined(self._splitter.feed(data))

    async def end(self) -> bytes:
        """The rest of the body."""
        if self._held is None:
            return await self._joined(self._splitter.end())
        data = b"".join(self._held)
        if not _has_blank_before_colon(data):
            return data
        return await self._joined(chain(self._splitter.feed(data), self._splitter.end()))

    @staticmethod
    async def _joined(pieces: Iterable[Piece]) -> bytes:
        done: list[bytes] = []
        for piece in pieces:
            done.append(piece.data)
            if len(done) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return b"".join(done)
