"""What of a stranger's text may go into a text of ours: smtpd_expansion_filter and its like."""

import re
from functools import lru_cache
from typing import Final

__all__ = ["allowed_characters", "sanitised"]

_ESCAPE: Final = re.compile(r"\\(?:([0-7]{1,3})|(.))", re.S)
_NAMED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@lru_cache(8)
def allowed_characters(text: str) -> frozenset[str]:
    r"""The characters of a text with escapes as in C: `\t`, `\40`, `\\`."""

    def plain(match: re.Match[str]) -> str:
        return chr(int(match[1], 8)) if match[1] else _NAMED.get(match[2], match[2])

    return frozenset(_ESCAPE.sub(plain, text))


def sanitised(text: str, allowed: frozenset[str]) -> str:
    """Replace by "_" what is not allowed (command_expansion_filter and the like)."""
    if allowed.issuperset(text):
        return text
    return "".join(char if char in allowed else "_" for char in text)
