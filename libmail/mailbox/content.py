"""A queued message as mailboxes want it: LF line ends, delivery headers, quoted From lines."""

import re
import time
from collections.abc import Iterator
from typing import Final

from libmail.queue.file import QueueFile

__all__ = [
    "delivery_headers",
    "local_lines",
    "maildir_content",
    "mbox_content",
    "mbox_from_line",
    "quote_from",
]

_FROM: Final = re.compile(rb"^From ", re.MULTILINE)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_PIECE: Final = 1 << 18


def delivery_headers(*, sender: str | None, orig_rcpt: str = "", delivered_to: str = "") -> bytes:
    """Return-Path (unless sender is None), X-Original-To, Delivered-To, each if it is known.

    Addresses are in external form, sender without its angle brackets.
    """
    lines = []
    if sender is not None:
        lines.append(f"Return-Path: <{sender}>\n")
    if orig_rcpt:
        lines.append(f"X-Original-To: {orig_rcpt}\n")
    if delivered_to:
        lines.append(f"Delivered-To: {delivered_to}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def mbox_from_line(sender: str, ctime: str) -> bytes:
    """The line that begins a message in an mbox file, and for a command.

    ctime: as time.ctime() writes it.
    """
    who = _CONTROLS.sub("_", sender) or "MAILER-DAEMON"
    return f"From {who}  {ctime}\n".encode("utf-8", "surrogateescape")


def quote_from(piece: bytes) -> bytes:
    """Make lines that begin with "From " begin with ">From "; the piece begins a line."""
    return _FROM.sub(rb">From ", piece) if b"From " in piece else piece


def local_lines(file: QueueFile, limit: int = _PIECE) -> Iterator[bytes]:
    """The message with LF line ends, in pieces that end at line ends where lines are not huge."""
    small = file.small_content()
    if small is not None:
        yield small.replace(b"\r\n", b"\n")
        return
    yield file.header().replace(b"\r\n", b"\n")
    rest = b""
    for data in file.body(limit):
        block = rest + data
        cut = block.rfind(b"\n") + 1
        if cut == 0 and len(block) >= 4 * limit:
            cut = len(block) - 1  # the last octet may be a CR, the first half of a line end
        rest = block[cut:]
        if cut:
            yield block[:cut].replace(b"\r\n", b"\n")
    if rest:
        yield rest.replace(b"\r\n", b"\n")


def maildir_content(file: QueueFile, headers: bytes) -> Iterator[bytes]:
    """A file of a Maildir, in as few pieces as there can be."""
    pieces = local_lines(file)
    yield headers + next(pieces, b"")
    yield from pieces


def mbox_content(file: QueueFile, sender: str, headers: bytes) -> Iterator[bytes]:
    """What is appended to an mbox file: From line, message, empty line; sender: external form."""
    pieces = map(quote_from, local_lines(file))
    last = mbox_from_line(sender, time.ctime()) + headers + next(pieces, b"")
    for piece in pieces:
        yield last
        last = piece
    yield last + b"\n"
