"""The message on standard input: in wire form, and the recipients in its header."""

from __future__ import annotations

from itertools import chain

from libmail.message.line_endings import LineEndings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HeaderTooLarge", "header_recipients", "probe", "read_header", "split_header",
           "wire_pieces"]  # fmt: skip

_PIECE = 1 << 18
_MAX_HEADER = 1 << 22
_RECIPIENT_FIELDS = frozenset((b"to", b"cc", b"bcc"))
_RESENT_FIELDS = frozenset((b"resent-to", b"resent-cc", b"resent-bcc"))
_MBOX_LINE = (b"From ", b">From ")


def _dot_line(data: bytes, starts_line: bool) -> int:
    """Where the first complete line with only a dot begins; -1 if there is none."""
    if starts_line and data.startswith((b".\n", b".\r\n")):
        return 0
    ends = [end for end in (data.find(b"\n.\n"), data.find(b"\n.\r\n")) if end >= 0]
    return min(ends) + 1 if ends else -1


def _until_dot(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The input up to a line that is a single dot, whether or not that line is ended."""
    held = b""  # the last line as far as it was read, where it may become such a line
    starts_line = True
    while more := read(_PIECE):
        data = held + more
        end = _dot_line(data, starts_line)
        if end >= 0:
            yield data[:end]
            return
        last = data.rfind(b"\n") + 1
        held = data[last:] if starts_line or last else b""
        if held not in (b".", b".\r"):
            held = b""
        data = data[: len(data) - len(held)]
        starts_line = bool(held) or data.endswith(b"\n")
        yield data
    if held != b".":
        yield held


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while data := read(_PIECE):
        yield data


def _without_mbox_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Drop the "From sender date" lines that some programs put before a message.

    One that does not end is a message.
    """
    start = b""
    for piece in pieces:
        start += piece
        at = 0
        while start.startswith(_MBOX_LINE, at) and (end := start.find(b"\n", at)) >= 0:
            at = end + 1
        start = start[at:]
        unended = start.startswith(_MBOX_LINE) or any(one.startswith(start) for one in _MBOX_LINE)
        if not unended or len(start) > _PIECE:
            break
    yield start
    yield from pieces


def _keeps_cr(pieces: Iterator[bytes], fix: str) -> tuple[bool, Iterator[bytes]]:
    """Whether CRs stay, and all pieces. fix: sendmail_fix_line_endings."""
    if fix != "strict":
        return fix == "never", pieces
    start = b""
    for piece in pieces:
        start += piece
        if b"\n" in start or len(start) > _PIECE:
            break
    return not start.partition(b"\n")[0].endswith(b"\r"), chain((start,), pieces)


def wire_pieces(
    read: Callable[[int], bytes], *, stop_at_dot: bool, fix: str = "always"
) -> Iterator[bytes]:
    """The message in wire form (CRLF), in pieces that are not empty.

    read: as os.read of standard input. stop_at_dot: a line with only a dot ends the message.
    fix: sendmail_fix_line_endings.
    """
    source = _until_dot(read) if stop_at_dot else _pieces(read)
    keep_cr, pieces = _keeps_cr(_without_mbox_lines(source), fix)
    endings = LineEndings(keep_cr=keep_cr)
    for piece in pieces:
        data = endings.feed(piece)
        if data:
            yield data
    if tail := endings.end():
        yield tail


def probe(sender: str, recipients: list[str]) -> bytes:
    """The message of sendmail -bv: a header that says what it is. Addresses in external form."""
    to = ",\r\n\t".join(recipients)
    text = f"From: {sender}\r\nSubject: probe\r\nTo:\t{to}\r\n"
    return text.encode("utf-8", "surrogateescape")


def _header_end(data: bytes) -> int | None:
    """Where the header ends that begins `data`; None while more data is needed to tell."""
    from libmail.message.headers import scan

    found = scan(data)
    return found.end if found.complete else None


def read_header(pieces: Iterator[bytes]) -> bytes:
    """Enough of the message to hold its header; what follows is left in `pieces`.

    The header may be incomplete if it is larger than 4 MiB.
    """
    data = b""
    looked = 0
    for piece in pieces:
        data += piece
        if len(data) > _MAX_HEADER:
            break
        if len(data) >= 2 * looked:  # so that small pieces do not mean many scans
            looked = len(data)
            if _header_end(data) is not None:
                break
    return data


def split_header(data: bytes) -> tuple[bytes, bytes]:
    """`data` from `read_header` as the header and the beginning of the body."""
    end = _header_end(data)
    return (data, b"") if end is None else (data[:end], data[end:])


class HeaderTooLarge(Exception):
    """There may be recipients in a part of the header that has not been read."""


def header_recipients(data: bytes) -> list[str]:
    """Values of To, Cc, Bcc, or of the Resent- ones of these if there are (RFC 5322 §3.6.6).

    data: from `read_header`. Raises HeaderTooLarge, as no recipient may get lost.
    """
    from libmail.message.headers import fields

    if len(data) > _MAX_HEADER and _header_end(data) is None:
        raise HeaderTooLarge
    header = split_header(data)[0]
    ordinary: list[str] = []
    resent: list[str] = []
    for item in fields(header):
        value = header[item.value : item.end].decode("utf-8", "surrogateescape")
        if item.name in _RECIPIENT_FIELDS:
            ordinary.append(value)
        elif item.name in _RESENT_FIELDS:
            resent.append(value)
    return resent or ordinary
