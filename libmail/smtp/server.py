"""The server's side of SMTP, without input and output: bytes in, events out.

    core.receive_data(data)
    while (event := core.next_event()) is not None: ...

In command mode every line is a `Command`. The caller answers DATA and then calls `begin_data`,
after which events are `Content` up to one `EndOfData`; `begin_chunk(size)` does the same for the
octets of a BDAT (RFC 3030), up to `EndOfChunk`. Content comes in wire form, without the dots of
RFC 5321 §4.5.2, in pieces as large as they were received.

How lines end decides what is one message, so two servers that disagree about it can be made to
forward a message that was hidden in another. `BareNewline` names what to do with a line feed
without carriage return:

- NORMALIZE: only CRLF "." CRLF ends the content. A bare line feed ends a line, and becomes CRLF;
  a line with nothing but a dot that is not such an end is left out;
- REJECT: as NORMALIZE; `EndOfData.bare_newline` tells the caller to refuse;
- ALLOW: also LF "." LF and the like end the content.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple, TypeAlias

from libmail.text.lineends import has_bare_newline, has_doubled_return, has_leading_dot

__all__ = [
    "BareNewline",
    "Command",
    "Content",
    "EndOfChunk",
    "EndOfData",
    "Event",
    "SmtpServerCore",
]


class BareNewline(Enum):
    """What a line feed without carriage return means, smtpd_forbid_bare_newline."""

    NORMALIZE = auto()
    REJECT = auto()
    ALLOW = auto()


class Command(NamedTuple):
    """A command line, without its end, cut off at the length limit and at a NUL.

    bare_newline: it ended in a line feed without carriage return. too_long: it was cut off.
    """

    line: bytes
    bare_newline: bool
    too_long: bool = False


class Content(NamedTuple):
    """A piece of the message."""

    data: bytes


class EndOfData(NamedTuple):
    """The content is complete. bare_newline: some line of it ended without carriage return."""

    bare_newline: bool


class EndOfChunk(NamedTuple):
    """The octets that BDAT announced are complete. bare_newline: as for EndOfData, so far."""

    bare_newline: bool


Event: TypeAlias = Command | Content | EndOfData | EndOfChunk

_END: Final = b"\r\n.\r\n"
# What may turn out to be the end of a line or of the data, or a dot to take off.
_UNDECIDED: Final = re.compile(rb"(?:(?<=\n)\.\r{0,3}|\r{1,3})\Z")
_LENIENT_END: Final = re.compile(rb"\n\.\r{0,3}\n")
_LONE_DOT: Final = re.compile(rb"(?<=\n)\.\r?\n")
_LINE_END: Final = re.compile(rb"\r{0,3}\n")


class _Mode(Enum):
    COMMAND = auto()
    DATA = auto()
    DATA_ENDED = auto()
    CHUNK = auto()


_HUNGRY: Final = (_Mode.COMMAND, _Mode.DATA)  # in which no event comes of nothing


class SmtpServerCore:
    """Splits what a client sends. Holds no more than what was received since the last event."""

    __slots__ = (
        "_at",
        "_bare",
        "_buffer",
        "_carry",
        "_last",
        "_left",
        "_limit",
        "_line_end",
        "_mode",
        "_newlines",
        "_skipping",
        "_unended",
    )

    def __init__(self, line_limit: int, newlines: BareNewline = BareNewline.NORMALIZE) -> None:
        """line_limit: octets of a command line, line_length_limit."""
        self._limit = line_limit
        self._newlines = newlines
        self._buffer = b""  # what was received; empty when all of it was handed out
        self._at = 0  # of _buffer; what is before was handed out
        self._mode = _Mode.COMMAND
        self._skipping = False  # the rest of a command line that is too long
        self._bare = False
        self._line_end = b""  # of content, when it is the last that was handed out
        self._left = 0  # octets of a chunk that were not received yet
        self._last = False  # the chunk is the last one
        self._carry = b""  # a carriage return at the end of what was received of chunks
        self._unended = False  # the last line of the chunks so far has no end

    @property
    def pending(self) -> bool:
        """Whether more was received than has become an event."""
        return bool(self._buffer)

    def peek(self, size: int) -> bytes:
        """The beginning of what was received and has not become an event yet."""
        return self._buffer[self._at : self._at + size]

    def take_rest(self) -> bytes:
        """All of it, which is then not for this parser."""
        rest = self._buffer[self._at :]
        self.reset()
        return rest

    @property
    def newlines(self) -> BareNewline:
        """How line ends are read."""
        return self._newlines

    def treat_newlines(self, newlines: BareNewline) -> None:
        """Change how line ends are read; between messages."""
        self._newlines = newlines

    def limit_lines(self, octets: int) -> None:
        """Change how long a command line may be."""
        self._limit = octets

    def receive_data(self, data: bytes) -> None:
        """Take what was received."""
        if self._buffer:
            data = self._buffer[self._at :] + data
        self._buffer, self._at = data, 0

    def begin_data(self) -> None:
        """What follows is the content of a message, up to its final dot."""
        self._mode = _Mode.DATA
        self._bare = False
        self._line_end = b"\r\n"  # of the line DATA

    def begin_chunk(self, size: int, *, first: bool, last: bool) -> None:
        """What follows are that many octets of content; first, last: chunk of the message."""
        self._mode = _Mode.CHUNK
        self._left = size
        self._last = last
        if first:
            self._bare = self._unended = False
            self._carry = b""

    def reset(self) -> None:
        """Drop what was received, as when the connection becomes another (STARTTLS)."""
        self._buffer = b""
        self._at = 0
        self._carry = b""
        self._mode = _Mode.COMMAND
        self._skipping = False

    def next_event(self) -> Event | None:
        """The next event, None: more has to be received."""
        if not self._buffer and self._mode in _HUNGRY:
            return None
        if self._mode is _Mode.COMMAND:
            return self._next_command()
        if self._mode is _Mode.DATA:
            return self._next_data()
        if self._mode is _Mode.CHUNK:
            return self._next_chunk()
        self._mode = _Mode.COMMAND
        return EndOfData(self._bare)

    # commands

    def _next_command(self) -> Command | None:
        if self._skipping and not self._skip():
            return None
        # The buffer is not touched: a client may send thousands of commands in one piece.
        buffer, start, limit = self._buffer, self._at, self._limit
        end = buffer.find(b"\n", start)
        if end < 0:
            if len(buffer) - start <= limit + 1:  # its last octet may be a carriage return
                return None
            self._buffer, self._at = b"", 0
            self._skipping = True
            return Command(_until_nul(buffer[start : start + limit]), False, too_long=True)
        self._at = end + 1
        if self._at == len(buffer):
            self._buffer, self._at = b"", 0
        bare = end == start or buffer[end - 1] != 0x0D
        line = buffer[start : end if bare else end - 1]
        if len(line) > limit:
            return Command(_until_nul(line[:limit]), False, too_long=True)
        return Command(line if b"\0" not in line else _until_nul(line), bare)

    def _skip(self) -> bool:
        """Drop the rest of a line that was too long; False: its end is still to come."""
        end = self._buffer.find(b"\n", self._at)
        self._hand_out(end + 1 if end >= 0 else len(self._buffer))
        self._skipping = end < 0
        return not self._skipping

    def _hand_out(self, end: int) -> None:
        """What is before was handed out, or is left out."""
        self._at = end
        if end == len(self._buffer):
            self._buffer, self._at = b"", 0

    # content up to the final dot

    def _next_data(self) -> Event | None:
        if self._at:
            self._buffer, self._at = self._buffer[self._at :], 0
        buffer, before = self._buffer, b""
        if buffer.startswith(b"."):  # whether it begins a line has to be seen
            before = self._line_end
            buffer = before + buffer
        # Most pieces have no line that begins with a dot, and this search is the fastest.
        dotted = has_leading_dot(buffer)
        start, end = self._find_end(buffer) if dotted else (-1, -1)
        if start >= 0:
            raw = buffer[:start]
            piece = self._content(raw, before, dotted=has_leading_dot(raw))
            self._buffer = buffer[end:]
            if not piece:
                self._mode = _Mode.COMMAND
                return EndOfData(self._bare)
            self._mode = _Mode.DATA_ENDED
            return Content(piece)
        match = _UNDECIDED.search(buffer, max(0, len(buffer) - 4))
        if match is None:
            keep, rest = buffer, b""
        else:
            keep, rest = buffer[: match.start()], buffer[match.start() :]
        if len(keep) == len(before):
            return None
        piece = self._content(keep, before, dotted=dotted)
        self._line_end = _last_line_end(keep)
        self._buffer = rest
        return Content(piece) if piece else None

    def _find_end(self, buffer: bytes) -> tuple[int, int]:
        """(behind the last line of content, behind the final dot); (-1, -1): not received yet."""
        if self._newlines is BareNewline.ALLOW:
            match = _LENIENT_END.search(buffer)
            return (match.start() + 1, match.end()) if match is not None else (-1, -1)
        at = buffer.find(_END)
        return (at + 2, at + 5) if at >= 0 else (-1, -1)

    def _content(self, raw: bytes, before: bytes, *, dotted: bool) -> bytes:
        """Take off dots and mend line ends of raw, and what it begins with: `before`, a line end.

        dotted: lines of it may begin with a dot.
        """
        strip = 2 if before else 0  # octets of a mended line end
        bare = has_bare_newline(raw)
        if not bare and not (self._newlines is BareNewline.ALLOW and has_doubled_return(raw)):
            if dotted:
                raw = raw.replace(b"\n.", b"\n")
            return raw[strip:]
        self._bare = self._bare or bare
        if self._newlines is BareNewline.ALLOW:
            return _LINE_END.sub(b"\r\n", raw.replace(b"\n.", b"\n"))[strip:]
        return _mend(_LONE_DOT.sub(b"", raw).replace(b"\n.", b"\n"))[strip:]

    # content in chunks

    def _next_chunk(self) -> Event | None:
        """The next piece of a chunk; a carriage return at its end waits for what follows."""
        if not self._left:
            self._mode = _Mode.COMMAND
            if self._last:
                tail, self._carry = self._carry, b""
                if tail or self._unended:
                    self._mode = _Mode.CHUNK
                    self._unended = False
                    return Content(tail + b"\r\n")
            return EndOfChunk(self._bare)
        if not self.pending:
            return None
        raw = self._buffer[self._at : self._at + self._left]
        self._hand_out(self._at + len(raw))
        self._left -= len(raw)
        raw = self._carry + raw
        self._carry = b""
        if raw.endswith(b"\r"):
            raw, self._carry = raw[:-1], b"\r"
        if not raw:
            return self._next_chunk()
        self._unended = not raw.endswith(b"\n")
        if has_bare_newline(raw):
            self._bare = True
            raw = _mend(raw)
        return Content(raw)


def _until_nul(line: bytes) -> bytes:
    return line.partition(b"\0")[0]


def _mend(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _last_line_end(raw: bytes) -> bytes:
    if raw.endswith(b"\r\n"):
        return b"\r\n"
    return b"\n" if raw.endswith(b"\n") else b""
