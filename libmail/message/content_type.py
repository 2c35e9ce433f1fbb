"""The value of a Content-Type field, RFC 2045 §5.1, as far as the structure of content needs it."""

import re
from typing import Final, NamedTuple

__all__ = ["PLAIN_TEXT", "ContentType", "parse_content_type"]

_COMMENT: Final = re.compile(rb'("(?:[^"\\]|\\.)*")|\((?:[^()\\]|\\.)*\)', re.S)
_TYPE: Final = re.compile(rb'\s*([^\s/;"]+)\s*/\s*([^\s;"]+)')
_PARAMETER: Final = re.compile(rb';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.S)
_PAIR: Final = re.compile(rb"\\(.)", re.S)
_LONGEST: Final = 100_000  # octets that are looked at


class ContentType(NamedTuple):
    """kind, subtype: in lower case. boundary: of a multipart, b"" if there is none."""

    kind: bytes
    subtype: bytes
    boundary: bytes

    @property
    def is_message(self) -> bool:
        """Whether the body is a message with a header of its own, RFC 2046 §5.2, RFC 6532 §3.7."""
        return self.kind == b"message" and self.subtype in (b"rfc822", b"global")


PLAIN_TEXT: Final = ContentType(b"text", b"plain", b"")


def parse_content_type(value: bytes) -> ContentType:
    """What is behind the colon; for what cannot be understood, text/plain."""
    text = _COMMENT.sub(rb"\1", value[:_LONGEST])
    match = _TYPE.match(text)
    if match is None:
        return PLAIN_TEXT
    boundary = b""
    for name, quoted, plain in _PARAMETER.findall(text, match.end()):
        if name.lower() == b"boundary":
            boundary = plain or _PAIR.sub(rb"\1", quoted)
            break
    return ContentType(match[1].lower(), match[2].lower(), boundary)
