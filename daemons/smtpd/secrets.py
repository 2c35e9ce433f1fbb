"""Masks secrets in command lines.

Command lines go into log lines, and into the transcript of a session, which may be mailed to the
postmaster. All of them pass through `masked` first.
"""

import re
from typing import Final

__all__ = ["FIRST", "MASK", "masked"]

MASK: Final = b"<masked>"

# AUTH mechanism initial-response, RFC 4954 §4; anywhere in what was sent in one go.
_AUTH: Final = re.compile(rb"(^|\n)([ \t\r]*AUTH[ \t\r]+[^ \t\r\n]+[ \t\r]+)([^\r\n]+)", re.I)
_ANY_AUTH: Final = re.compile(rb"[ \t\r]*AUTH(?:[ \t\r]|\Z)", re.I)
# A line of an authentication exchange: base64 and no command, or the "*" that gives it up.
_RESPONSE: Final = re.compile(rb"[A-Za-z0-9+/=*]+[ \t\r]*\Z")
FIRST: Final = b"Aa \t\r"
"""Octets of which a line with AUTH begins with one."""

_SHORT: Final = 4  # octets; no password, and most commands


def masked(line: bytes, *, after_secret: bool) -> tuple[bool, bytes]:
    """(whether the line has a secret, the line or lines without it).

    after_secret: the line before had one, so that this may be the rest of it, sent by a client that
    does not wait for (or heed) our reply.
    """
    if line[:1] in FIRST and _ANY_AUTH.match(line):
        return True, _AUTH.sub(rb"\1\2" + MASK, line)
    if after_secret and len(line) > _SHORT and _RESPONSE.match(line):
        return True, MASK
    return False, _AUTH.sub(rb"\1\2" + MASK, line) if b"\n" in line else line
