"""The external form of an address, as it goes over the wire, into headers and log lines."""

import re
from typing import Final

from libmail.text.printable import printable, without_controls

__all__ = [
    "PLAIN_ATEXT",
    "PLAIN_DOT_ATOM",
    "header_address",
    "quote_local",
    "rejoined",
    "shown_address",
]

# As regular expressions: a character, and a local part, which nothing rewrites in any
# configuration: RFC 5322 §3.2.3 without "!" and "%", which are operators.
PLAIN_ATEXT: Final = r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]"
PLAIN_DOT_ATOM: Final = rf"{PLAIN_ATEXT}+(?:\.{PLAIN_ATEXT}+)*"

_ATOM: Final = r"[^\x00-\x20()<>@,;:\\\".\[\]\x7f]+"
# Dot-string = Atom *("." Atom), atext as in RFC 5322 §3.2.3 and RFC 6531 §3.3; what else a local
# part holds has to be quoted.
_DOT_STRING: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_PLAIN: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*(?:@[^@]*)?").fullmatch
_ESCAPED: Final = re.compile(r'["\\\r]')


def rejoined(text: str) -> str:
    """Text out of which something was taken (backslashes, comments), as if it had been read so.

    Octets that were no UTF-8 by themselves may stand together now, and make a character; without
    this, the same octets would be another text on the other side of a wire.
    """
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def quote_local(address: str) -> str:
    """Turn an internal address into its external form; "" stays "".

    Text behind the last "@" is the domain, and taken as it is.
    """
    if not address or _PLAIN(address):
        return address
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    if _DOT_STRING.fullmatch(local):
        return address
    return '"' + _ESCAPED.sub(r"\\\g<0>", local) + '"' + at + domain


def header_address(address: str) -> str:
    """The external form for a header field of ours: no control characters."""
    if _PLAIN(address) and address.isprintable():
        return address
    return without_controls(quote_local(address))


def shown_address(address: str) -> str:
    """The external form for people: printable."""
    return printable(quote_local(address))
