"""The headers of parts and attached messages, where no table looks at them.

As in the header of the message, white space before a colon goes, and a field that is too large is
cut. Of the body only lines that begin with "--" are looked at.
"""

import asyncio
from collections.abc import Iterable

from libmail.message.mime import MimeLimits, MimeSplitter, Piece

__all__ = ["PartHeaders"]

_AT_ONCE = 500  # pieces, after which other sessions have their turn


class PartHeaders:
    """One message: its Content-Type fields, `end_header`, then its body in any pieces."""

    def __init__(self, limits: MimeLimits) -> None:
        self._splitter = MimeSplitter(limits)

    def note_type(self, value: bytes) -> None:
        """What is behind the colon of a Content-Type field of the message."""
        self._splitter.note_type(value)

    def end_header(self) -> bool:
        """Whether there may be other headers."""
        self._splitter.end_header()
        return not self._splitter.plain

    async def body(self, data: bytes) -> bytes:
        """What to write of the body now."""
        return await self._joined(self._splitter.feed(data))

    async def end(self) -> bytes:
        """The rest of the body."""
        return await self._joined(self._splitter.end())

    @staticmethod
    async def _joined(pieces: Iterable[Piece]) -> bytes:
        done: list[bytes] = []
        for piece in pieces:
            done.append(piece.data)
            if len(done) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return b"".join(done)
