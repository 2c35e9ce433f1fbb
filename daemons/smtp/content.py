"""The content of a message as it goes over the wire.

A body is sent as it is in the queue file, by sendfile(2) when it is large. It is looked into only
if scanning it on arrival has found lines that begin with a dot or are too long, or if the server
does not take 8-bit content.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from daemons.smtp.wire import Wire
from libmail.queue.file import ContentFlag, QueueFile
from libmail.smtp.client import BODY, END_OF_DATA

__all__ = ["Content", "break_lines", "edit_lines", "stuff_dots"]

_DOT: Final = b".\r\n"
_PIECE: Final = 1 << 18
_USUAL_LIMIT: Final = 998
_LONG_LINES: Final = int(ContentFlag.LONG_LINES)
_DOT_LINES: Final = int(ContentFlag.DOT_LINES)

Edit = Callable[[bytes], bytes]


def stuff_dots(lines: bytes) -> bytes:
    """Double the dot at the beginning of lines, RFC 5321 §4.5.2."""
    lines = lines.replace(b"\n.", b"\n..")
    return b"." + lines if lines.startswith(b".") else lines


def break_lines(limit: int) -> Edit:
    """Break lines longer than `limit` octets by CR LF SPACE."""
    step = max(limit - 1, 1)  # the space counts

    def broken(match: re.Match[bytes]) -> bytes:
        line = match[0]
        text = line.removesuffix(b"\r")
        parts = [text[:limit], *(text[at : at + step] for at in range(limit, len(text), step))]
        return b"\r\n ".join(parts) + line[len(text) :]

    pattern = re.compile(rb"[^\n]{%d,}" % (limit + 1))
    return lambda lines: pattern.sub(broken, lines)


def edit_lines(pieces: Iterable[bytes], edits: Iterable[Edit]) -> Iterator[bytes]:
    """Apply edits, which are made for whole lines, to content that comes in any pieces."""
    kept: list[bytes] = []
    edits = tuple(edits)
    for piece in pieces:
        cut = piece.rfind(b"\n") + 1
        if not cut:
            kept.append(piece)
            continue
        lines = b"".join((*kept, piece[:cut]))
        kept = [piece[cut:]] if cut < len(piece) else []
        for edit in edits:
            lines = edit(lines)
        yield lines
    if kept:
        lines = b"".join(kept)
        for edit in edits:
            lines = edit(lines)
        yield lines


class Content:
    """One message on its way to one server."""

    def __init__(
        self,
        file: QueueFile,
        *,
        prefix: bytes = b"",
        header: bytes | None = None,
        line_limit: int = 0,
        convert: Edit | None = None,
    ) -> None:
        """prefix: header lines to put in front. header: instead of the one in the file.

        line_limit: `smtp_line_length_limit`, 0 for none. convert: makes 7-bit content of all of it.
        """
        self._file = file
        self._prefix = prefix
        self._header = header
        self._convert = convert
        flags = int(file.preamble.flags)
        self._edits: list[Edit] = []
        # LONG_LINES tells of lines beyond the default limit only.
        long_lines = flags & _LONG_LINES or line_limit < _USUAL_LIMIT
        if line_limit and (long_lines or convert is not None):
            self._edits.append(break_lines(line_limit))
        if convert is not None or flags & _DOT_LINES:
            self._edits.append(stuff_dots)

    async def send(self, wire: Wire, after: bytes) -> None:
        """Send content and end of data. after: commands to follow at once. Raises Lost."""
        small = self._file.small_content() if self._header is None else None
        if small is not None and self._convert is None:
            data = self._prefix + small if self._prefix else small
            for edit in self._edits:
                data = edit(data)
            end = _DOT if data.endswith(b"\n") else b"\r\n" + _DOT
            await wire.send_all(data + end + after, BODY)
            return
        wire.send_at_once()
        if self._edits or self._convert is not None:
            last = await self._send_edited(wire)
        else:
            last = await self._send_plain(wire)
        end = _DOT if last.endswith(b"\n") else b"\r\n" + _DOT
        await wire.send_all(end + after, END_OF_DATA)

    async def _send_plain(self, wire: Wire) -> bytes:
        """Returns the last octets."""
        header = self._own_header()
        await wire.send_all(header, BODY)
        offset, length = self._file.preamble.body
        if not length:
            return header[-1:]
        await wire.sendfile(self._file.fd, offset, length, BODY)
        return self._file.read(offset + length - 1, 1)

    async def _send_edited(self, wire: Wire) -> bytes:
        """Returns the last octets."""
        last = b"\n"
        pieces = self._pieces() if self._convert is None else await self._converted(self._convert)
        for data in edit_lines(pieces, self._edits):
            await wire.send_all(data, BODY)
            last = data[-1:]
        return last

    def _own_header(self) -> bytes:
        return self._prefix + (self._file.header() if self._header is None else self._header)

    async def _converted(self, convert: Edit) -> Iterable[bytes]:
        """All of the content at once, for the structure of MIME is known at its end only."""
        data = b"".join((self._own_header(), *self._file.body()))
        if len(data) > _PIECE:
            # Other sessions are not to wait for it.
            return (await asyncio.to_thread(convert, data),)
        return (convert(data),)

    def _pieces(self) -> Iterator[bytes]:
        yield self._own_header()
        yield from self._file.body(_PIECE)
