"""Enhanced mail system status codes (RFC 3463)."""

import re
from typing import Final, NamedTuple

__all__ = ["DsnText", "adapt_class", "split_dsn"]

# status-code = class "." subject "." detail       RFC 3463 §2
_CODE: Final = re.compile(r"\s*([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s+|$)")


class DsnText(NamedTuple):
    """A status code and the text that goes with it."""

    dsn: str
    text: str


def split_dsn(text: str, default: str) -> DsnText:
    """Split "5.1.1 text" (RFC 3463 §2); without a code at the start, `default` is the code."""
    match = _CODE.match(text)
    if match is None:
        return DsnText(default, text.lstrip())
    return DsnText(match[1], text[match.end() :])


def adapt_class(dsn: str, digit: str) -> str:
    """The same code in another class, e.g. 4 for a permanent failure made temporary."""
    return digit + dsn[1:]
