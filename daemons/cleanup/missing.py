"""The header fields that a message lacks: Message-Id, Date, From, To (RFC 5322 §3.6)."""

import re
from collections.abc import Set
from typing import Final

from daemons.cleanup.params import HeaderParams
from libmail.ipc.messages import Envelope, QueueId
from libmail.message.dates import make_message_id, rfc5322_date
from libmail.text.quoting import header_address

__all__ = ["REDISTRIBUTION", "VISIBLE_RECIPIENTS", "MissingFields"]

REDISTRIBUTION: Final = frozenset(
    (b"resent-from", b"resent-sender", b"resent-reply-to", b"resent-to", b"resent-cc",
     b"resent-bcc", b"resent-date", b"resent-message-id")
)  # fmt: skip
VISIBLE_RECIPIENTS: Final = frozenset((b"to", b"cc", b"resent-to", b"resent-cc"))
_USUAL: Final = frozenset((b"message-id", b"date", b"from"))
_PHRASE_SPECIALS: Final = re.compile(r'[()<>@,;:\\".\[\]\x00-\x1f\x7f]')
_QUOTED_SPECIALS: Final = re.compile(r'["\\]')
_COMMENT_SPECIALS: Final = re.compile(r"[()\\]")
_WORD_SAFE: Final = re.compile(r"[^A-Za-z0-9!*+/-]")


class MissingFields:
    """Makes them, for the messages of a process."""

    def __init__(self, params: HeaderParams) -> None:
        self._params = params
        undisclosed = params.undisclosed_recipients_header
        self._undisclosed = f"{undisclosed}\r\n".encode() if undisclosed else b""

    def make(self, seen: Set[bytes], envelope: Envelope, queue_id: QueueId) -> tuple[bytes, str]:
        """The fields that are to be added, Resent- ones for redistributed mail, and the Message-Id
        among them ("" for none). seen: names of fields that are there, in lower case."""
        params = self._params
        resent = not seen.isdisjoint(REDISTRIBUTION)
        if seen >= _USUAL and not resent and not self._undisclosed:
            return b"", ""
        prefix, key = ("Resent-", b"resent-") if resent else ("", b"")
        parts: list[str] = []
        message_id = ""
        if envelope.rewrite_context or params.always_add_missing_headers:
            if key + b"message-id" not in seen:
                message_id = make_message_id(envelope.arrival, queue_id, params.myhostname)
                parts.append(f"{prefix}Message-Id: {message_id}\r\n")
            if key + b"date" not in seen:
                parts.append(f"{prefix}Date: {rfc5322_date(envelope.arrival)}\r\n")
            if key + b"from" not in seen:
                parts.append(f"{prefix}From: {self._from(envelope)}\r\n")
        data = "".join(parts).encode("utf-8", "surrogateescape") if parts else b""
        if self._undisclosed and seen.isdisjoint(VISIBLE_RECIPIENTS):
            data += self._undisclosed
        return data, message_id

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
