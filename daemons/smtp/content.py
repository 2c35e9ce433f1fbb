"""The content of a message as it goes over the wire.

A body is sent as it is in the queue file, by sendfile(2) when it is large. It is looked into only
if scanning it on arrival has found lines that begin with a dot or are too long, or if the server
does not take 8-bit content.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from daemons.smtp.wire import Wire
from libmail.queue.file import ContentFlag, QueueFile
from libmail.smtp.client import BODY, END_OF_DATA

__all__ = ["PIECE", "Content", "Edit", "LineEdits", "break_lines", "stuff_dots"]

_DOT: Final = b".\r\n"
PIECE: Final = 1 << 18  # octets of the body that are read at a time
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


class LineEdits:
    """Applies edits, which are made for whole lines, to content that comes in any pieces."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits = tuple(edits)
        self._kept: list[bytes] = []

    def feed(self, piece: bytes) -> bytes:
        """The lines that are complete with this piece."""
        cut = piece.rfind(b"\n") + 1
        if not cut:
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
        for edit in self._edits:
            lines = edit(lines)
        return lines


class _EditedLines:
    """Sends content with edits."""

    def __init__(self, wire: Wire, edits: Iterable[Edit]) -> None:
        self._wire = wire
        self._edits = LineEdits(edits)
        self._last = b"\n"

    async def put(self, piece: bytes) -> None:
        """Any piece of the content. Raises Lost."""
        await self._send(self._edits.feed(piece))

    async def end(self) -> bytes:
        """Send what is left; returns the last octet. Raises Lost."""
        await self._send(self._edits.end())
        return self._last

    async def _send(self, data: bytes) -> None:
        if data:
            await self._wire.send_all(data, BODY)
            self._last = data[-1:]


class BodyChecks(Protocol):
    """What may change the body, piece by piece."""

    async def body(self, data: bytes) -> bytes:
        """What is to be sent now. Raises LocalTrouble."""

    async def end(self) -> bytes:
        """The rest. Raises LocalTrouble."""


class Content:
    """One message on its way to one server."""

    def __init__(
        self,
        file: QueueFile,
        *,
        prefix: bytes = b"",
        header: bytes | None = None,
        checks: BodyChecks | None = None,
        line_limit: int = 0,
        convert: Edit | None = None,
    ) -> None:
        """prefix: header lines to put in front. header: instead of the one in the file.

        checks: for the body. line_limit: `smtp_line_length_limit`, 0 for none. convert: makes
        7-bit content of all of it.
        """
        self._file = file
        self._prefix = prefix
        self._header = header
        self._checks = checks
        self._convert = convert
        flags = int(file.preamble.flags)
        self._edits: list[Edit] = []
        # The flags tell of what is in the file only.
        other = convert is not None or checks is not None or _needs_edits(header, line_limit)
        # LONG_LINES tells of lines beyond the default limit only.
        long_lines = flags & _LONG_LINES or line_limit < _USUAL_LIMIT
        if line_limit and (long_lines or other):
            self._edits.append(break_lines(line_limit))
        if other or flags & _DOT_LINES:
            self._edits.append(stuff_dots)

    async def send(self, wire: Wire, after: bytes, *, pause: float = 0.0) -> None:
        """Send content and end of data. after: commands to follow at once. Raises Lost.

        pause: seconds before the end of data, which then goes out by itself.
        """
        small = self._file.small_content() if self._header is None and not pause else None
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
        missing = b"" if last.endswith(b"\n") else b"\r\n"
        if pause:
            await wire.send_all(missing, BODY)
            missing = b""
            await asyncio.sleep(pause)
        await wire.send_all(missing + _DOT + after, END_OF_DATA)

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
        lines = _EditedLines(wire, self._edits)
        if self._convert is not None:
            await lines.put(await self._converted(self._convert))
        else:
            await lines.put(self._own_header())
            for piece in self._file.body(PIECE):
                await lines.put(await self._checked(piece))
            await lines.put(await self._checked_end())
        return await lines.end()

    async def _converted(self, convert: Edit) -> bytes:
        """All of the content at once, for the structure of MIME is known at its end only."""
        pieces = [self._own_header()]
        for piece in self._file.body(PIECE):
            pieces.append(await self._checked(piece))
        pieces.append(await self._checked_end())
        data = b"".join(pieces)
        if len(data) > PIECE:
            # Other sessions are not to wait for it.
            return await asyncio.to_thread(convert, data)
        return convert(data)

    async def _checked(self, piece: bytes) -> bytes:
        if self._checks is None:
            return piece
        await asyncio.sleep(0)  # other sessions are not to wait for all of it
        return await self._checks.body(piece)

    async def _checked_end(self) -> bytes:
        return b"" if self._checks is None else await self._checks.end()

    def _own_header(self) -> bytes:
        return self._prefix + (self._file.header() if self._header is None else self._header)


def _needs_edits(header: bytes | None, line_limit: int) -> bool:
    """Whether a header that was made by rules has lines that the file had not."""
    if header is None:
        return False
    if header.startswith(b".") or b"\n." in header:
        return True
    return line_limit > 0 and len(max(header.split(b"\r\n"), key=len)) > line_limit
