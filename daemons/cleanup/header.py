"""The message header: what is missing is added, what is not wanted removed, addresses completed.

One pass over the fields. A field that needs nothing is not touched; runs of such fields are copied
as one piece, and a header in which nothing changes is not copied at all.
"""

import re
from typing import Final, NamedTuple

from daemons.cleanup.mapping import HEADER_RECIPIENT, HEADER_SENDER, AddressMapper
from daemons.cleanup.params import HeaderParams
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupStatus, Envelope, QueueId
from libmail.log import LOG
from libmail.log.events import MessageId
from libmail.message.addresses import AddressField, complete
from libmail.message.dates import make_message_id, rfc5322_date
from libmail.message.headers import Field
from libmail.quoting import header_address
from libmail.smtp.address import quote_local

__all__ = ["Header", "HeaderEditor"]

_SENDERS: Final = frozenset(
    (b"from", b"sender", b"reply-to", b"errors-to", b"return-receipt-to",
     b"disposition-notification-to", b"mail-reply-to",
     b"resent-from", b"resent-sender", b"resent-reply-to")
)  # fmt: skip
_RECIPIENTS: Final = frozenset(
    (b"to", b"cc", b"bcc", b"apparently-to", b"mail-followup-to",
     b"resent-to", b"resent-cc", b"resent-bcc")
)  # fmt: skip
_ADDRESSES: Final = _SENDERS | _RECIPIENTS
_MESSAGE_IDS: Final = frozenset((b"message-id", b"resent-message-id"))
_RESENT: Final = frozenset(
    (b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to", b"resent-cc",
     b"resent-bcc", b"resent-date", b"resent-message-id")
)  # fmt: skip
_VISIBLE: Final = frozenset((b"to", b"cc", b"resent-to", b"resent-cc"))
_MIME: Final = frozenset((b"mime-version", b"content-type"))
_OF_CONTENT: Final = frozenset((b"content-type", b"content-transfer-encoding"))
_FOLD: Final = re.compile(r"\r\n[ \t]*")
_PHRASE_SPECIALS: Final = re.compile(r'[()<>@,;:\\".\[\]\x00-\x1f\x7f]')
_QUOTED_SPECIALS: Final = re.compile(r'["\\]')
_COMMENT_SPECIALS: Final = re.compile(r"[()\\]")
_WORD_SAFE: Final = re.compile(r"[^A-Za-z0-9!*+/-]")


_ENCODING: Final = b"content-transfer-encoding"
_ENCODINGS: Final = {b"7bit": False, b"8bit": True, b"binary": True}
_COMPOSITE: Final = (b"multipart/", b"message/")


class Header(NamedTuple):
    """The header as it goes to the queue file. message_id: "" if there is none.

    eightbit: what Content-Transfer-Encoding says, None where it says nothing of that. composite:
    the message has parts, with encodings of their own.
    """

    data: bytes
    message_id: str
    mime: bool
    eightbit: bool | None = None
    composite: bool = False


class HeaderEditor:
    """Works on the headers of messages, one `edit` each."""

    def __init__(self, params: HeaderParams, mapper: AddressMapper) -> None:
        self._params = params
        self._mapper = mapper
        self._drop = frozenset(
            name.lower().rstrip(":").encode("utf-8", "surrogateescape")
            for name in params.message_drop_headers
        )
        undisclosed = params.undisclosed_recipients_header
        self._undisclosed = f"{undisclosed}\r\n".encode() if undisclosed else b""

    async def edit(
        self, data: bytes, found: list[Field], end: int, envelope: Envelope, queue_id: QueueId,
        *, mapping: bool,
    ) -> Header:  # fmt: skip
        """The new header for the one in data[:end].

        found: its fields. envelope: with the final sender. mapping: canonical tables and
        masquerading apply. Raises Refused.
        """
        seen_ids = _MessageIds(queue_id)
        rewrite = bool(envelope.rewrite_context)
        pieces: list[bytes] = []
        kept = 0  # data up to here is in pieces
        hops = 0
        seen: set[bytes] = set()
        limit = self._params.header_size_limit
        source = data
        for field in found:
            name, start, value, after = field
            seen.add(name)
            if name == b"received":
                hops += 1
            changed: bytes | None = None
            long = after - start > limit
            if name in self._drop:
                changed = b""
            else:
                if long or value - start != len(name) + 1:
                    changed = self._normal(data, field)
                if name in _ADDRESSES:
                    if rewrite and not long:  # who knows where the last address was cut
                        text = data[start:after] if changed is None else changed
                        new = await self._addresses(name, text, envelope, queue_id, mapping)
                        changed = new or changed
                elif name in _MESSAGE_IDS:
                    seen_ids.see(data[value:after], resent=name != b"message-id")
            if changed is not None:
                pieces += (data[kept:start], changed)
                kept = after
        if hops > self._params.hopcount_limit:
            LOG.warning(f"{queue_id}: message rejected: hopcount exceeded")
            raise Refused(CleanupStatus.HOPS, "5.4.0", "too many hops")
        missing = self._missing(seen, envelope, queue_id, seen_ids)
        if pieces or missing or end != len(data):
            pieces += (data[kept:end], missing)
            data = b"".join(pieces)
        if seen.isdisjoint(_OF_CONTENT):
            return Header(data, seen_ids.value, b"mime-version" in seen)
        return Header(data, seen_ids.value, bool(seen & _MIME), *_content(source, found))

    def _normal(self, data: bytes, field: Field) -> bytes:
        """The field without white space before its colon, cut at header_size_limit."""
        name = data[field.start : field.start + len(field.name)]
        text = name + b":" + data[field.value : field.end - 2]
        if len(text) - text.count(b"\r\n") > self._params.header_size_limit:
            lines = text.replace(b"\r\n", b"\n")[: self._params.header_size_limit]
            text = lines.replace(b"\n", b"\r\n").rstrip(b"\r\n")
        return text + b"\r\n"

    async def _addresses(
        self, name: bytes, text: bytes, envelope: Envelope, queue_id: QueueId, mapping: bool
    ) -> bytes | None:
        """An address field with complete and mapped addresses; None if nothing changes."""
        mapper = self._mapper
        kind = HEADER_SENDER if name in _SENDERS else HEADER_RECIPIENT
        mapping = mapping and mapper.maps_class(kind)
        head, _, value = text.partition(b":")
        if not mapping and complete(value):
            return None
        context = "local" if envelope.rewrite_context == "local" else "remote"
        limit = self._params.header_address_token_limit
        field = AddressField(value.decode("utf-8", "surrogateescape"), limit)
        changed = False
        for mailbox in field.mailboxes:
            if not mailbox.address:
                continue
            address = await mapper.rewrite(context, queue_id, mailbox.address)
            if mapping:
                address = await mapper.map_class(kind, queue_id, address)
            new = quote_local(address)
            if new != mailbox.address:
                mailbox.address = new
                changed = True
        if not changed:
            return None
        if field.truncated:
            LOG.warning(
                f"{queue_id}: header_address_token_limit: addresses beyond {limit} tokens"
                f" in {head.decode('ascii').strip()}: header are discarded"
            )
        return _encoded(field.render(head.decode("ascii")) + "\r\n")

    def check_end_of_header(self) -> None:
        """The header is followed by something else than an empty line. Raises Refused."""
        if self._params.non_empty_end_of_header_action == "reject":
            raise Refused(CleanupStatus.CONTENT, "5.6.0", "non-empty end of header")

    def _missing(
        self, seen: set[bytes], envelope: Envelope, queue_id: QueueId, seen_ids: "_MessageIds"
    ) -> bytes:
        """The fields that are added: Message-Id, Date, From, To; Resent- ones for such mail."""
        params = self._params
        resent = not seen.isdisjoint(_RESENT)
        prefix, key = ("Resent-", b"resent-") if resent else ("", b"")
        parts: list[str] = []
        if envelope.rewrite_context or params.always_add_missing_headers:
            if key + b"message-id" not in seen:
                message_id = make_message_id(envelope.arrival, queue_id, params.myhostname)
                parts.append(f"{prefix}Message-Id: {message_id}\r\n")
                seen_ids.see(message_id.encode(), resent=resent)
            if key + b"date" not in seen:
                parts.append(f"{prefix}Date: {rfc5322_date(envelope.arrival)}\r\n")
            if key + b"from" not in seen:
                parts.append(f"{prefix}From: {self._from(envelope)}\r\n")
        if not seen_ids.any:
            LOG.event(MessageId(queue_id, "<>", resent=False))
        data = _encoded("".join(parts)) if parts else b""
        if self._undisclosed and not seen & _VISIBLE:
            data += self._undisclosed
        return data

    def _from(self, envelope: Envelope) -> str:
        params = self._params
        address = header_address(envelope.sender) or "MAILER-DAEMON"
        name = " ".join(envelope.full_name.split())
        if not name or not envelope.sender:
            return address
        obsolete = params.header_from_format == "obsolete"
        if not name.isascii() and params.full_name_encoding_charset:
            name = _encoded_word(name, params.full_name_encoding_charset)
        elif obsolete:
            name = _COMMENT_SPECIALS.sub(r"\\\g<0>", name)
        elif _PHRASE_SPECIALS.search(name):
            name = '"' + _QUOTED_SPECIALS.sub(r"\\\g<0>", name) + '"'
        return f"{address} ({name})" if obsolete else f"{name} <{address}>"


class _MessageIds:
    """The Message-Id fields of a header. value: of the last one; any: there was one."""

    __slots__ = ("_queue_id", "any", "value")

    def __init__(self, queue_id: QueueId) -> None:
        self._queue_id = queue_id
        self.value = ""
        self.any = False

    def see(self, text: bytes, *, resent: bool) -> None:
        """Log it, and remember the Message-Id proper. text: behind the colon."""
        value = text.strip().decode("utf-8", "surrogateescape")
        if "\r" in value:
            value = _FOLD.sub(" ", value)
        LOG.event(MessageId(self._queue_id, value, resent))
        if not resent:
            self.value = value
            self.any = True


def _content(data: bytes, found: list[Field]) -> tuple[bool | None, bool]:
    """What the fields say of the body: (whether it is 8bit, whether it has parts)."""
    eightbit: bool | None = None
    composite = False
    for name, _, value, after in found:
        if name == _ENCODING:
            eightbit = _ENCODINGS.get(data[value:after].strip().lower(), eightbit)
        elif name == b"content-type":
            composite = data[value:after].lstrip().lower().startswith(_COMPOSITE)
    return eightbit, composite


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _encoded_word(name: str, charset: str) -> str:
    """RFC 2047 §4.2, with as many words as the length limit asks for."""
    try:
        name.encode(charset)
    except (LookupError, UnicodeError):
        charset = "utf-8"
    words: list[str] = []
    current = ""
    for char in name:
        code = _q_encoded(char, charset)
        if len(current) + len(code) + len(charset) + 7 > 75:
            words.append(current)
            current = ""
        current += code
    words.append(current)
    return " ".join(f"=?{charset}?Q?{word}?=" for word in words)


def _q_encoded(char: str, charset: str) -> str:
    if char == " ":
        return "_"
    if not _WORD_SAFE.match(char):
        return char
    return "".join(f"={byte:02X}" for byte in char.encode(charset, "surrogateescape"))
