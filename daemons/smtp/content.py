"""The content of a message as it goes over the wire.

A body is sent as it is in the queue file, by sendfile(2) when it is large. It is looked into only
if scanning it on arrival has found lines that begin with a dot or are too long, or if the server
does not take 8-bit content.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from libmail.message.downgrade import Downgrade, Edit, LineEdits
from libmail.net.wire import Wire
from libmail.queue.file import ContentFlag, QueueFile
from libmail.smtp.client import BODY, END_OF_DATA

__all__ = [
    "PIECE",
    "USUAL_LIMIT",
    "Content",
    "Edit",
    "LineBreaker",
    "ended",
    "goes_as_queued",
    "stuff_dots",
]

_DOT: Final = b".\r\n"
PIECE: Final = 1 << 18  # octets of the body that are read at a time
USUAL_LIMIT: Final = 998  # octets of a line, from which on there are LONG_LINES
_AT_ONCE: Final = 1 << 14  # octets that are converted at once
_LONG_LINES: Final = int(ContentFlag.LONG_LINES)
_DOT_LINES: Final = int(ContentFlag.DOT_LINES)
_TO_EDIT: Final = _LONG_LINES | _DOT_LINES


def goes_as_queued(file: QueueFile) -> bool:
    """Whether no line of the file has to be changed, with a limit that is not below the usual."""
    return not file.preamble.flags & _TO_EDIT


def ended(content: bytes) -> bytes:
    """Content with the end of data behind it, on a line of its own."""
    return content + (_DOT if content.endswith(b"\n") else b"\r\n" + _DOT)


def stuff_dots(lines: bytes) -> bytes:
    """Double the dot at the beginning of lines, RFC 5321 §4.5.2."""
    lines = lines.replace(b"\n.", b"\n..")
    return b"." + lines if lines.startswith(b".") else lines


class LineBreaker:
    """Breaks lines longer than `limit` octets by CR LF SPACE. used: there was one."""

    def __init__(self, limit: int) -> None:
        self.used = False
        self._limit = limit
        self._pattern = re.compile(rb"[^\n]{%d}[^\n]*+" % (limit + 1))

    def __call__(self, lines: bytes) -> bytes:
        """Whole lines, broken."""
        return self._pattern.sub(self._broken, lines)

    def _broken(self, match: re.Match[bytes]) -> bytes:
        line, limit = match[0], self._limit
        text = line.removesuffix(b"\r")
        if len(text) <= limit:
            return line
        self.used = True
        step = max(limit - 1, 1)  # the space counts
        parts = [text[:limit], *(text[at : at + step] for at in range(limit, len(text), step))]
        return b"\r\n ".join(parts) + line[len(text) :]


class _EditedLines:
    """Sends content through edits, such as dot stuffing."""

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
        convert: Downgrade | None = None,
    ) -> None:
        """prefix: header lines to put in front. header: instead of the one in the file.

        checks: for the body. line_limit: `smtp_line_length_limit`, 0 for none. convert: makes
        7-bit content of it.
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
        long_lines = flags & _LONG_LINES or line_limit < USUAL_LIMIT
        self._breaker: LineBreaker | None = None
        if line_limit and (long_lines or other):
            self._breaker = LineBreaker(line_limit)
            self._edits.append(self._breaker)
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
            await wire.send_all(ended(data) + after, BODY)
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

    @property
    def broken(self) -> bool:
        """Whether lines had to be broken."""
        return self._breaker is not None and self._breaker.used

    async def _send_plain(self, wire: Wire) -> bytes:
        """Returns the last octets."""
        header = self._own_header()
        await wire.send_all(header, BODY)
        offset, length = self._file.preamble.body
        if not length:
            return header[-1:]
        if self._file.preamble.reusable:  # the server may read what sendfile(2) has queued late
            body = self._file.read(offset, length)
            await wire.send_all(body, BODY)
            return body[-1:]
        await wire.sendfile(self._file.fd, offset, length, BODY)
        return self._file.read(offset + length - 1, 1)

    async def _send_edited(self, wire: Wire) -> bytes:
        """Returns the last octets."""
        lines = _EditedLines(wire, self._edits)
        header = self._own_header()
        convert = self._convert
        if convert is not None:
            header = await self._done(convert.header, header)
        await lines.put(header)
        for piece in self._file.body(PIECE):
            await lines.put(await self._converted(await self._checked(piece)))
        await lines.put(await self._converted(await self._checked_end()))
        if convert is not None:
            await lines.put(convert.end())
        return await lines.end()

    async def _converted(self, piece: bytes) -> bytes:
        return piece if self._convert is None else await self._done(self._convert.feed, piece)

    async def _done(self, conversion: Callable[[bytes], bytes], piece: bytes) -> bytes:
        if len(piece) > _AT_ONCE:
            # Other sessions are not to wait for it.
            return await asyncio.to_thread(conversion, piece)
        return conversion(piece)

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
