"""Delivered-To: who got this message before, so that a forwarding loop ends."""

import re
from typing import Final

from libmail.smtp.address import unquote
from libmail.text.printable import without_controls

__all__ = ["earlier_recipients", "had_before"]

_FIELD: Final = re.compile(rb"^Delivered-To[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def earlier_recipients(header: bytes) -> frozenset[str]:
    """The addresses in the Delivered-To fields, in internal form and lower case.

    header: wire form. What somebody else writes is not looked into: only a line with an address
    and nothing else, as we write it, tells of an earlier delivery.
    """
    texts = (value.decode("utf-8", "surrogateescape") for value in _FIELD.findall(header))
    return frozenset(unquote(text.strip()).lower() for text in texts)


def had_before(address: str, earlier: frozenset[str]) -> bool:
    """Whether the address (internal form) is one of those; in fields it has no controls."""
    return without_controls(address).lower() in earlier
