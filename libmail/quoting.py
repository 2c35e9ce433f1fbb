"""The external form of an address, as it goes over the wire, into headers and log lines."""

import re
from typing import Final

__all__ = ["quote_local"]

_ATOM: Final = r"[^\x00-\x20()<>@,;:\\\".\[\]\x7f]+"
# Dot-string = Atom *("." Atom), atext as in RFC 5322 §3.2.3 and RFC 6531 §3.3; what else a local
# part holds has to be quoted.
_DOT_STRING: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_PLAIN: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*(?:@[^@]*)?").fullmatch
_ESCAPED: Final = re.compile(r'["\\\r]')


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
