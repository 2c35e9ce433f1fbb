"""Delivered-To: who got this message before, so that a forwarding loop ends."""

import re
from typing import Final

from libmail.message.addresses import addresses_in
from libmail.smtp.address import unquote

__all__ = ["earlier_recipients"]

_FIELD: Final = re.compile(
    rb"^Delivered-To:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE
)


def earlier_recipients(header: bytes) -> frozenset[str]:
    """The addresses in the Delivered-To fields, in internal form and lower case.

    header: wire form.
    """
    return frozenset(
        unquote(address).lower()
        for value in _FIELD.findall(header)
        for address in addresses_in(value.decode("utf-8", "surrogateescape"))
    )
