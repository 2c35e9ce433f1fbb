"""Values of MIME fields, RFC 2045 §5.1 and §6.1, as far as the structure of content needs them.

Any text gives tokens, and each octet belongs to one token: reading is linear whatever comes.
Comments nest; what is quoted or a comment and lacks its end goes on to the end of the text; line
ends within a quoted string are those of folding and no part of it.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["PLAIN_TEXT", "ContentType", "parse_content_type", "parse_encoding"]

_TOKEN: Final = re.compile(
    rb"(?P<space>[\x00-\x20\x7f]+)"
    rb'|(?P<quoted>"(?P<words>(?:[^"\\]|\\.)*)(?:"|\\?\Z))'
    rb"|(?P<comment>\()"
    rb'|(?P<atom>[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]+)'
    rb"|(?P<special>.)",
    re.S,
)
_COMMENT_PART: Final = re.compile(rb"[()]|\\.", re.S)
_PAIR: Final = re.compile(rb"\\(.)", re.S)
_FOLD: Final = re.compile(rb"\r?\n")
_ENCODING: Final = re.compile(rb'[^\x00-\x20\x7f()<>@,;:\\".\[\]]+')  # RFC 822, not RFC 2045
_MEMBERS: Final = 3  # tokens of a parameter that count


class ContentType(NamedTuple):
    """kind, subtype: in lower case. boundaries: of a multipart, as many as are given; b"" makes
    a delimiter of each line that begins with "--"."""

    kind: bytes
    subtype: bytes
    boundaries: tuple[bytes, ...] = ()

    @property
    def is_message(self) -> bool:
        """Whether the body is a message with a header of its own, RFC 2046 §5.2, RFC 6532 §3.7."""
        return self.kind == b"message" and self.subtype in (b"rfc822", b"global")

    @property
    def is_global(self) -> bool:
        """Whether that message may have 8-bit data in its header."""
        return self.kind == b"message" and self.subtype == b"global"

    @property
    def holds_parts(self) -> bool:
        """Whether its parts or its message are encoded one by one, RFC 2045 §6.4. What
        message/global holds may be encoded, RFC 6532 §3.5."""
        return self.kind == b"multipart" or (self.kind, self.subtype) == (b"message", b"rfc822")

    @property
    def is_7bit(self) -> bool:
        """Whether the body must be 7-bit data, RFC 2046 §5.2.2 and §5.2.3."""
        return self.kind == b"message" and self.subtype in (b"partial", b"external-body")

    @property
    def is_composite(self) -> bool:
        """Whether the body has encodings of its own, RFC 2045 §6.4."""
        return self.kind in (b"multipart", b"message")


PLAIN_TEXT: Final = ContentType(b"text", b"plain")


class _Token(NamedTuple):
    """kind: the name of a group of `_TOKEN`."""

    kind: str
    text: bytes


def _comment_end(text: bytes, start: int) -> int:
    """Where the comment that begins at `start` ends."""
    depth = 0
    for part in _COMMENT_PART.finditer(text, start):
        if part[0] == b"(":
            depth += 1
        elif part[0] == b")":
            depth -= 1
            if depth == 0:
                return part.end()
    return len(text)


def _sections(text: bytes) -> Iterator[list[_Token]]:
    """The tokens between semicolons, without white space and comments, and not more than count."""
    tokens: list[_Token] = []
    at = 0
    while (found := _TOKEN.match(text, at)) is not None:
        at = found.end()
        match found.lastgroup:
            case "comment":
                at = _comment_end(text, found.start())
            case "special" if found[0] == b";":
                yield tokens
                tokens = []
            case "atom" | "special" as kind if len(tokens) < _MEMBERS:
                tokens.append(_Token(kind, found[0]))
            case "quoted" as kind if len(tokens) < _MEMBERS:
                words = _PAIR.sub(rb"\1", found["words"])
                tokens.append(_Token(kind, _FOLD.sub(b"", words)))
    yield tokens


def parse_content_type(value: bytes) -> ContentType:
    """What is behind the colon; for what cannot be understood, text/plain."""
    sections = _sections(value)
    head = next(sections)
    if not head or head[0].kind != "atom":
        return PLAIN_TEXT
    kind, subtype = head[0].text.lower(), b""
    if len(head) == _MEMBERS and head[1].text == b"/":
        subtype = head[2].text.lower() if head[2].kind == "atom" else b""
    elif kind not in (b"multipart", b"message"):
        return PLAIN_TEXT
    boundaries: list[bytes] = []
    if kind == b"multipart":
        for tokens in sections:
            if len(tokens) == _MEMBERS and tokens[1].text == b"=":
                name = tokens[0]
                if name.kind == "atom" and name.text.lower() == b"boundary":
                    boundaries.append(tokens[2].text)
    return ContentType(kind, subtype, tuple(boundaries))


def parse_encoding(value: bytes) -> bytes:
    """The Content-Transfer-Encoding, in lower case; b"" for what is none."""
    at = 0
    while at < len(value):
        if (found := _ENCODING.match(value, at)) is not None:
            return found[0].lower()
        octet = value[at : at + 1]
        if octet == b"(":
            at = _comment_end(value, at)
        elif octet in b" \t\r\n":
            at += 1
        else:
            break
    return b""
