"""The message as the command of a pipe(8) service gets it."""

import time
from collections.abc import Iterator

from daemons.pipe.attributes import Attributes, Flags
from libmail.ipc.messages import Recipient
from libmail.mailbox.content import delivery_headers, local_lines, mbox_from_line, quote_from
from libmail.queue.file import QueueFile
from libmail.text.quoting import header_address

__all__ = ["content"]


def content(
    attributes: Attributes, file: QueueFile, sender: str, recipient: Recipient
) -> Iterator[bytes]:
    """The pieces, with the changes that flags= asks for, and line ends as eol= has them.

    sender: of the envelope, "" for the null sender. recipient: the first one; with flags that put
    it into the header it is the only one.
    """
    eol = attributes.eol
    for piece in _lines(attributes, file, sender, recipient):
        yield piece if eol == b"\n" else piece.replace(b"\n", eol)


def _lines(
    attributes: Attributes, file: QueueFile, sender: str, recipient: Recipient
) -> Iterator[bytes]:
    flags = attributes.flags
    head = _head(flags, sender or attributes.null_sender, recipient)
    for piece in local_lines(file):
        if flags.quote_from:
            piece = quote_from(piece)
        if flags.stuff_dots:
            piece = _stuffed(piece)
        yield head + piece if head else piece
        head = b""
    if flags.blank_end:
        yield b"\n"


def _head(flags: Flags, sender: str, recipient: Recipient) -> bytes:
    who = header_address(sender)
    start = mbox_from_line(who, time.ctime()) if flags.from_line else b""
    return start + delivery_headers(
        sender=who if flags.return_path else None,
        orig_rcpt=header_address(recipient.orig_rcpt) if flags.original_to else "",
        delivered_to=header_address(recipient.address) if flags.delivered_to else "",
    )


def _stuffed(piece: bytes) -> bytes:
    """Put a dot before lines that begin with one."""
    piece = piece.replace(b"\n.", b"\n..")
    return b"." + piece if piece.startswith(b".") else piece
