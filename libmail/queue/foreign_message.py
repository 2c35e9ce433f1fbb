"""A message as the original Postfix keeps it, turned into what our queue files hold; without I/O.

`ForeignMessage` takes the records of a file in one pass: the content is handed out in pieces in
wire form while the envelope is collected. Text of the envelope may come from anybody, so it is
bounded and checked here.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from libmail.ipc.messages import Envelope, EnvelopeFlag, Recipient
from libmail.queue.foreign_records import (
    END,
    EXTRACTED,
    MESSAGE,
    TEXT,
    TEXT_PART,
    ForeignFileError,
    ReadAt,
    Record,
    records,
)
from libmail.smtp.address import XtextError, xtext_decode, xtext_encode
from libmail.text.quoting import quote_local

__all__ = ["ForeignMessage", "ForeignRecipient", "orcpt_of", "stored_orcpt"]

# Types of records, as `postcat -d` of Postfix shows them.
_SIZE: Final = "C"
_ARRIVAL: Final = "T"
_SENDER: Final = "S"
_FULL_NAME: Final = "F"
_RECIPIENT: Final = "R"
_DONE: Final = "D"
_CANCELED: Final = "/"
_ORIGINAL: Final = "O"
_ATTRIBUTE: Final = "A"
_KILLED: Final = "K"
_FILTER: Final = "L"
_REDIRECT: Final = ">"
_WARN: Final = "W"
_VERP: Final = "V"
# Records that older versions of sendmail write in place of named attributes.
_OLD_ATTRIBUTES: Final = {
    "i": "envelope_id",
    "<": "ret_flags",
    "o": "dsn_orig_rcpt",
    "n": "notify_flags",
}

_PIECE: Final = 1 << 18
_MAX_ENVELOPE: Final = 1 << 18  # octets of everything but recipients
_MAX_TEXT: Final = 1 << 14  # octets of what belongs to a recipient
_MAX_RECIPIENTS: Final = 1_000_000
_OPTIONS: Final = {
    1: EnvelopeFlag.SMTPUTF8, 16: EnvelopeFlag.TLS_OPTIONAL, 32: EnvelopeFlag.REQUIRETLS,
}  # fmt: skip
_NOTIFY_BITS: Final = 15
_RETURN: Final = {1: EnvelopeFlag.DSN_FULL, 2: EnvelopeFlag.DSN_HEADERS}
_TRACE_PROBE: Final = 256  # an address probe of verify(8)
_TRACE_VERIFY: Final = 512  # sendmail -bv
_TRACE_VERBOSE: Final = 1024  # sendmail -v


class ForeignRecipient(NamedTuple):
    """A recipient; its offset is that of its record in the original file."""

    recipient: Recipient
    done: bool


class ForeignMessage:
    """One file of the original. First all of `content`, then `finish`.

    read, size: of the file, as for `records`. queue_id: its name. After `head` the sender and
    the arrival (of the epoch, 0 if unknown) are known, which together with the queue id tell a
    message from all others.
    """

    def __init__(self, read: ReadAt, size: int, queue_id: str) -> None:
        self.sender: str | None = None
        self.arrival = 0.0
        self.recipients: list[ForeignRecipient] = []
        self.probe = False
        self._queue_id = queue_id
        self._records = records(read, size)
        self._attributes: dict[str, str] = {}
        self._room = _MAX_ENVELOPE
        self._full_name = self._content_filter = self._redirect = self._verp = ""
        self._flags = 0
        self._warn_time = 0.0
        self._original = ""  # what precedes a recipient
        self._dsn_orcpt = ""
        self._notify = 0

    def head(self) -> None:
        """Read up to the content. Raises ForeignFileError, like everything here."""
        first = next(self._records, None)
        if first is None or first.kind not in (_SIZE, _ARRIVAL):
            raise ForeignFileError("not a Postfix queue file")
        self._take(first)
        if self._section() != MESSAGE:
            raise ForeignFileError("no message content")
        if self.sender is None:
            raise ForeignFileError("no sender")
        if not self.arrival:
            raise ForeignFileError("no arrival time")

    def content(self) -> Iterator[bytes]:
        """The header and the body in wire form; the last line has its line end."""
        parts: list[bytes] = []
        size, ended = 0, True
        for kind, _, data in self._records:
            if kind == TEXT:
                parts += (data, b"\r\n")
                ended = True
            elif kind == TEXT_PART:
                parts.append(data)
                ended = False
            elif kind == EXTRACTED:
                break
            elif kind in (MESSAGE, END):
                raise ForeignFileError("content has no end")
            size += len(data) + 2
            if size >= _PIECE:
                yield b"".join(parts)
                parts, size = [], 0
        if not ended:
            parts.append(b"\r\n")
        yield b"".join(parts)

    def finish(self, message_id: str) -> Envelope:
        """The envelope, after the content. message_id: of the header."""
        if self._section() != END:
            raise ForeignFileError("no end of message")
        if not self.recipients:
            raise ForeignFileError("no recipients")
        own = self._attribute
        logged = self._logged
        return Envelope(
            sender=self.sender or "",
            flags=self._envelope_flags(local=not own("client_address")),
            arrival=self.arrival,
            full_name=self._full_name,
            dsn_envid=own("envelope_id"),
            rewrite_context=own("rewrite_context") or "local",
            content_filter=self._content_filter,
            redirect=self._redirect,
            verp_delims=self._verp,
            client_name=own("client_name"),
            reverse_client_name=own("reverse_client_name"),
            client_address=own("client_address"),
            client_port=own("client_port"),
            helo_name=own("helo_name"),
            protocol_name=own("protocol_name"),
            server_address=own("server_address"),
            server_port=own("server_port"),
            sasl_method=own("sasl_method"),
            sasl_username=own("sasl_username"),
            sasl_sender=own("sasl_sender"),
            log_client_name=logged("client_name"),
            log_client_address=logged("client_address"),
            log_client_port=logged("client_port"),
            log_helo_name=logged("helo_name"),
            log_protocol_name=logged("protocol_name"),
            log_ident=own("log_ident") if own("log_ident") != self._queue_id else "",
            message_id=message_id,
            warn_time=self._warn_time,
        )

    def _attribute(self, name: str) -> str:
        return self._attributes.get(name, "")

    def _logged(self, name: str) -> str:
        """Where mail came from before a content filter; the original has it for all mail."""
        value = self._attribute(f"log_{name}")
        return value if value != self._attribute(name) else ""

    def _envelope_flags(self, *, local: bool) -> int:
        flags = self._flags
        if local:
            flags |= EnvelopeFlag.LOCAL
        if self._attribute("encoding") == "8bit":
            flags |= EnvelopeFlag.EIGHTBIT
        flags |= _RETURN.get(_number(self._attribute("ret_flags")), 0)
        trace = _number(self._attribute("trace_flags"))
        if trace & _TRACE_VERIFY:
            flags |= EnvelopeFlag.VERIFY_ONLY
        if trace & _TRACE_VERBOSE:
            flags |= EnvelopeFlag.VERBOSE
        return int(flags)

    def _section(self) -> str:
        """Take records up to the one that ends a section; its kind."""
        for record in self._records:
            if record.kind in (MESSAGE, EXTRACTED, END):
                return record.kind
            self._take(record)
        raise ForeignFileError("unexpected end of file")

    def _take(self, record: Record) -> None:
        kind = record.kind
        if kind in (_RECIPIENT, _DONE, _CANCELED, _ORIGINAL):
            self._take_recipient(record)
        elif kind == _ATTRIBUTE:
            name, equals, value = self._text(record).partition("=")
            if equals:
                self._name(name, value)
        elif kind in _OLD_ATTRIBUTES:
            self._name(_OLD_ATTRIBUTES[kind], self._text(record))
        else:
            self._take_single(record)

    def _take_recipient(self, record: Record) -> None:
        if len(record.data) > _MAX_TEXT:
            raise ForeignFileError(f"recipient of {len(record.data)} octets")
        address = _decoded(record)
        if record.kind == _ORIGINAL:
            self._original = address
            return
        if record.kind != _CANCELED:
            if len(self.recipients) == _MAX_RECIPIENTS:
                raise ForeignFileError("too many recipients")
            orcpt = orcpt_of(self._dsn_orcpt, self._original)
            recipient = Recipient(address, self._original, orcpt, self._notify, record.offset)
            self.recipients.append(ForeignRecipient(recipient, record.kind == _DONE))
        self._original = self._dsn_orcpt = ""
        self._notify = 0

    def _take_single(self, record: Record) -> None:
        """What a message has once; kinds that mean nothing to us are left out."""
        kind = record.kind
        if kind == _SENDER:
            self.sender = self._text(record)
        elif kind == _ARRIVAL:
            self.arrival = _seconds(record)
        elif kind == _WARN:
            self._warn_time = _seconds(record)
        elif kind == _KILLED and record.data.strip().isdigit():  # the delay notice was sent
            self._warn_time = -_seconds(record)
        elif kind == _FULL_NAME:
            self._full_name = self._text(record)
        elif kind == _FILTER:
            self._content_filter = self._text(record)
        elif kind == _REDIRECT:
            self._redirect = self._text(record)
        elif kind == _VERP:
            delimiters = self._text(record)
            self._verp = delimiters if len(delimiters) == 2 else ""
        elif kind == _SIZE:
            numbers = record.data.split()
            for bit, flag in _OPTIONS.items():
                if len(numbers) > 5 and _number(numbers[5]) & bit:
                    self._flags |= flag

    def _name(self, name: str, value: str) -> None:
        """A named attribute, of the message or of the next recipient."""
        if name == "dsn_orig_rcpt":
            self._dsn_orcpt = value
        elif name == "notify_flags":
            self._notify = _number(value) & _NOTIFY_BITS
        elif name == "create_time":
            pass  # of the file, and ours is a new one
        else:
            self._attributes[name] = value
            self.probe = self.probe or (
                name == "trace_flags" and bool(_number(value) & _TRACE_PROBE)
            )

    def _text(self, record: Record) -> str:
        """The data of what a message has once, or a recipient's attribute, as text."""
        if record.data.startswith((b"dsn_orig_rcpt=", b"notify_flags=")) or record.kind in "on":
            if len(record.data) > _MAX_TEXT:
                raise ForeignFileError(f"recipient attribute of {len(record.data)} octets")
        else:
            self._room -= len(record.data)
            if self._room < 0:
                raise ForeignFileError("envelope too large")
        return _decoded(record)


def orcpt_of(stored: str, original: str) -> str:
    """An original recipient "type;address" of the original, as the xtext of RFC 3461 §4.2.

    The original stores one for each recipient; "" stands for the one that says nothing new, that
    is, the address original (internal form).
    """
    kind, semicolon, address = stored.partition(";")
    ours = kind.lower() in ("rfc822", "utf-8")
    if not semicolon or (ours and address in (original, quote_local(original))):
        return ""
    return stored if kind.lower() == "utf-8" else f"{kind};{xtext_encode(address)}"


def stored_orcpt(recipient: Recipient) -> str:
    """What the original stores as the original recipient: the inverse of `orcpt_of`."""
    kind, semicolon, text = recipient.dsn_orcpt.partition(";")
    if not semicolon:
        return f"rfc822;{quote_local(recipient.orig_rcpt or recipient.address)}"
    try:
        return f"{kind};{xtext_decode(text)}"
    except XtextError:
        return recipient.dsn_orcpt


def _decoded(record: Record) -> str:
    if b"\0" in record.data or b"\n" in record.data:
        raise ForeignFileError(f"control character in the envelope, offset {record.offset}")
    return record.data.decode("utf-8", "surrogateescape")


def _number(text: str | bytes) -> int:
    try:
        return int(text) if len(text) < 20 else 0
    except ValueError:
        return 0


def _seconds(record: Record) -> float:
    """Seconds, and perhaps microseconds."""
    words = record.data.split()
    if not 1 <= len(words) <= 2 or not all(word.isdigit() and len(word) < 16 for word in words):
        raise ForeignFileError(f"bad time at offset {record.offset}")
    return int(words[0]) + (int(words[1]) / 1e6 if len(words) == 2 else 0.0)
