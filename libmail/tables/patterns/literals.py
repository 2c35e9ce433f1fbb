"""Text that whatever matches a pattern must contain, so that most patterns need not be tried.

To search a pattern costs a call into a C library; to look for a text first costs a tenth of that,
and of the hundreds of patterns of a table nearly all fail already there.  What is not understood at
once has no such text, which is always right.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["required_text"]

_SHORTEST: Final = 2
# Verbs, comments, inline `x`, and quoted stretches change how the rest is to be read.
_ODD: Final = re.compile(rb"\(\*|\(\?#|\(\?[a-zA-Z^-]*x|\\Q")
_GROUP_PART: Final = re.compile(rb"\\.|\[|[()]|[^\\\[()]+", re.DOTALL)
_CLASS: Final = re.compile(rb"\[\^?\]?(?:\[:[a-z]+:\]|[^\]\[\\])*\]")
_PIECE: Final = re.compile(
    rb"""(?P<plain>[^\\^$.|()\[\]{}*+?]+)
    |\\(?P<escaped>[.\\/@$^*+?()\[\]{}|\- #:;,!%&=~"])
    |(?P<type>\\[dDwWsSbBnrt<>]|[.^$])""",
    re.VERBOSE,
)
_QUANTIFIER: Final = re.compile(rb"(?:[*+?]|\{[0-9,]*\})+")


def required_text(pattern: bytes) -> bytes:
    """The longest text, in lower case, that each match of an extended or Perl pattern has.

    b"" where none is found.  Upper and lower case of ASCII letters are not told apart.
    """
    if _ODD.search(pattern):
        return b""
    best, run, at = b"", b"", 0
    while at < len(pattern):
        piece = _PIECE.match(pattern, at)
        if piece is not None:
            at = piece.end()
            literal = piece["plain"] or piece["escaped"] or b""
        else:
            at, literal = _behind_group(pattern, at), b""
            if at < 0:
                return b""
        run += literal
        quantifier = _QUANTIFIER.match(pattern, at)
        if quantifier is not None:
            at = quantifier.end()
            if literal and quantifier[0] != b"+":  # regexp reads `a+?` as `(a+)?`
                run = run[:-1]
        if quantifier is not None or not literal:
            best, run = max(best, run, key=len), b""
    best = max(best, run, key=len)
    return best.lower() if len(best) >= _SHORTEST else b""


def _behind_group(pattern: bytes, at: int) -> int:
    """The place behind the group or set that begins here; -1 if something else is here."""
    if pattern[at : at + 1] == b"[":
        found = _CLASS.match(pattern, at)
        return found.end() if found is not None else -1
    if pattern[at : at + 1] != b"(":
        return -1
    depth = 0
    while at < len(pattern):
        part = (_CLASS if pattern[at : at + 1] == b"[" else _GROUP_PART).match(pattern, at)
        if part is None:
            return -1
        at = part.end()
        depth += (part[0] == b"(") - (part[0] == b")")
        if depth == 0:
            return at
    return -1
