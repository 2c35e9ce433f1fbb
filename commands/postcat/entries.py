"""What postcat(1) prints of a queue file of ours: the records that the original would have."""

import time
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from libmail.ipc.messages import Envelope, EnvelopeFlag, Recipient
from libmail.queue.file import ANY_STATE, DONE, Extent, Preamble, QueueFile
from libmail.queue.foreign_message import stored_orcpt

__all__ = ["Entry", "Part", "entries", "marker"]

_CLIENT: Final = (
    "client_name", "reverse_client_name", "client_address", "client_port", "server_address",
    "server_port", "helo_name", "protocol_name",
)  # fmt: skip
_LOGGED: Final = ("client_name", "client_address", "client_port", "helo_name", "protocol_name")
_SASL: Final = ("sasl_method", "sasl_username", "sasl_sender")
_LINE_PIECE: Final = 1 << 16


class Part(Enum):
    """Of a message."""

    ENVELOPE = "e"
    HEADER = "h"
    BODY = "b"


class Entry(NamedTuple):
    """One record. kind: its type, a letter. whole_line: the text lacks its line end. inner: it
    matters to the file itself only."""

    part: Part
    offset: int
    kind: str
    text: bytes
    whole_line: bool = True
    inner: bool = False


def marker(offset: int, kind: str, title: str, name: str) -> Entry:
    """The line between two parts of a file."""
    return _entry(offset, kind, f"*** {title} {name} ***")


def entries(file: QueueFile, name: str, *, by_line: bool) -> Iterator[Entry]:
    """All of a file, in the order of the original's. Raises QueueFileCorrupt, OSError.

    by_line: content as an entry for each line; otherwise in larger pieces.
    """
    preamble, envelope = file.preamble, file.envelope()
    yield marker(0, "", "ENVELOPE RECORDS", name)
    yield from _attributes(preamble, envelope)
    for recipient in file.recipients(states=ANY_STATE):
        yield from _recipient(recipient, file.state(recipient))
    yield marker(preamble.header.offset, "M", "MESSAGE CONTENTS", name)
    yield from _content(file, preamble.header, Part.HEADER, by_line=by_line)
    yield from _content(file, preamble.body, Part.BODY, by_line=by_line)
    end = preamble.recipients.end
    yield marker(end, "X", "HEADER EXTRACTED", name)
    at = preamble.attributes.offset
    if envelope.content_filter:
        yield _entry(at, "L", f"content_filter: {envelope.content_filter}")
    if envelope.redirect:
        yield _entry(at, ">", f"redirect_to: {envelope.redirect}")
    if envelope.message_id:
        yield _entry(at, "A", f"named_attribute: message_id={envelope.message_id}")
    yield marker(end, "E", "MESSAGE FILE END", name)


def _entry(offset: int, kind: str, text: str) -> Entry:
    return Entry(Part.ENVELOPE, offset, kind, text.encode("utf-8", "surrogateescape"))


def _attributes(preamble: Preamble, envelope: Envelope) -> Iterator[Entry]:
    size, flags = preamble.size, envelope.flags
    utf8 = int(bool(flags & EnvelopeFlag.SMTPUTF8))
    numbers = (size, preamble.header.offset, preamble.recipient_count, 0, size, utf8)
    yield _entry(0, "C", "message_size: " + " ".join(f"{number:15d}" for number in numbers))
    yield _entry(0, "T", f"message_arrival_time: {time.ctime(envelope.arrival)}")
    yield _entry(0, "A", f"create_time: {time.ctime(preamble.arrival)}")
    at = preamble.attributes.offset
    for name, value in _named(envelope):
        if value:
            yield _entry(at, "A", f"named_attribute: {name}={value}")
        if name == "ret_flags":
            if envelope.full_name:
                yield _entry(at, "F", f"sender_fullname: {envelope.full_name}")
            yield _entry(at, "S", f"sender: {envelope.sender}")
    if envelope.verp_delims:
        yield _entry(at, "V", f"verp_delimiters: {envelope.verp_delims}")
    if envelope.warn_time > 0:
        yield _entry(at, "W", f"warning_message_time: {time.ctime(envelope.warn_time)}")


def _named(envelope: Envelope) -> Iterator[tuple[str, str]]:
    """Named attributes; the sender comes behind ret_flags."""
    flags = envelope.flags
    full, headers = flags & EnvelopeFlag.DSN_FULL, flags & EnvelopeFlag.DSN_HEADERS
    trace = 512 * bool(flags & EnvelopeFlag.VERIFY_ONLY)
    trace |= 1024 * bool(flags & EnvelopeFlag.VERBOSE) | 256 * bool(flags & EnvelopeFlag.PROBE)
    yield "log_ident", envelope.log_ident
    yield "rewrite_context", envelope.rewrite_context
    yield "envelope_id", envelope.dsn_envid
    yield "ret_flags", "1" if full else "2" if headers else ""
    yield "encoding", "8bit" if flags & EnvelopeFlag.EIGHTBIT else ""
    yield "trace_flags", str(trace) if trace else ""
    for name in _LOGGED:
        yield f"log_{name}", getattr(envelope, f"log_{name}") or getattr(envelope, name)
    for name in (*_CLIENT, *_SASL):
        yield name, getattr(envelope, name)


def _recipient(recipient: Recipient, state: bytes) -> Iterator[Entry]:
    at = recipient.offset
    if recipient.notify:
        yield _entry(at, "A", f"named_attribute: notify_flags={recipient.notify}")
    orcpt = stored_orcpt(recipient)
    yield _entry(at, "A", f"named_attribute: dsn_orig_rcpt={orcpt}")
    if recipient.orig_rcpt:
        yield _entry(at, "O", f"original_recipient: {recipient.orig_rcpt}")
    kind, label = ("D", "done_recipient") if state == DONE else ("R", "recipient")
    yield _entry(at, kind, f"{label}: {recipient.address}")


def _content(file: QueueFile, extent: Extent, part: Part, *, by_line: bool) -> Iterator[Entry]:
    """Lines that end in LF."""
    offset, end = extent.offset, extent.end
    held = b""
    while offset < end:
        piece = file.read(offset, min(_LINE_PIECE, end - offset))
        data = held + piece
        start = offset - len(held)
        offset += len(piece)
        complete = len(data) if offset == end else data.rfind(b"\n") + 1
        if not complete and len(data) < _LINE_PIECE:
            held = data
            continue
        complete = complete or len(data) - 1  # the last octet may be half a line end
        held = data[complete:]
        yield from _pieces(data[:complete], start, part, by_line=by_line)


def _pieces(data: bytes, start: int, part: Part, *, by_line: bool) -> Iterator[Entry]:
    if not by_line:
        yield Entry(part, start, "N", data.replace(b"\r\n", b"\n"), whole_line=False)
        return
    lines = data.split(b"\r\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        yield Entry(part, start, "N", line)
        start += len(line) + 2
