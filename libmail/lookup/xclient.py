"""What trusted clients say of others: the attributes of XCLIENT and XFORWARD.

XCLIENT name=value ...: take me for this client. XFORWARD name=value ...: the next message came from
this client first. Values are in xtext (RFC 3461 §4); what is no xtext is taken as it stands.
`[UNAVAILABLE]` says that there is none, `[TEMPUNAVAIL]` that nobody knows now.

Sources: XCLIENT_README, XFORWARD_README.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from libmail.dns.hostname import valid_hostaddr, valid_hostname
from libmail.smtp.address import XtextError, xtext_decode

__all__ = [
    "TEMPORARY",
    "UNAVAILABLE",
    "UNKNOWN",
    "XCLIENT",
    "XFORWARD",
    "BadAttribute",
    "Forwarded",
    "address",
    "attributes",
    "host_name",
    "neutral",
    "port",
]

UNAVAILABLE: Final = "[UNAVAILABLE]"
UNKNOWN: Final = "unknown"  # as it is shown
TEMPORARY: Final = "[TEMPUNAVAIL]"
XCLIENT: Final = ("NAME", "ADDR", "PROTO", "HELO", "REVERSE_NAME", "PORT", "LOGIN", "DESTADDR",
                  "DESTPORT")  # fmt: skip
XFORWARD: Final = ("NAME", "ADDR", "PROTO", "HELO", "SOURCE", "PORT", "IDENT")
# What would be misread where an attribute is shown.
_UNSAFE: Final = {ord(char): "?" for char in ' <>()\\";@'}
_IPV6: Final = "IPV6:"


class BadAttribute(Exception):
    """An attribute cannot be taken; the text is that of the reply."""


class Forwarded(NamedTuple):
    """The client from which a message came first, as XFORWARD tells it.

    name: "" if nothing is said of the client. local: SOURCE is LOCAL, None if it was not given.
    ident: of the message there, for the log.
    """

    name: str = ""
    address: str = ""
    port: str = ""
    protocol: str = ""
    helo: str = ""
    ident: str = ""
    local: bool | None = None


def attributes(verb: str, argument: str, names: Collection[str]) -> list[tuple[str, str]]:
    """(name, decoded value) of each attribute. Raises BadAttribute."""
    found: list[tuple[str, str]] = []
    for word in argument.split():
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise BadAttribute("Error: attribute=value expected")
        if name.upper() not in names:
            raise BadAttribute(f"Bad {verb} attribute name: {name}")
        try:
            value = xtext_decode(value)
        except XtextError:
            pass
        found.append((name.upper(), value))
    return found


def host_name(name: str, value: str) -> str:
    """A value that has to be a host name. Raises BadAttribute."""
    if not valid_hostname(value) or valid_hostaddr(value):
        raise _bad(name, value)
    return value


def address(name: str, value: str, *, ipv6: bool) -> str:
    """A value that has to be an address, "IPV6:" before one of IPv6. Raises BadAttribute.

    ipv6: addresses of that kind exist here (inet_protocols).
    """
    plain = value
    if value[: len(_IPV6)].upper() == _IPV6:
        plain = value[len(_IPV6) :]
        if not ipv6 or ":" not in plain:
            raise _bad(name, value)
    if not valid_hostaddr(plain) or (":" in plain and not ipv6):
        raise _bad(name, value)
    return plain


def port(name: str, value: str) -> str:
    """A value that has to be a number. Raises BadAttribute."""
    if not (value.isascii() and value.isdigit() and len(value) <= 10):
        raise _bad(name, value)
    return value


def neutral(value: str) -> str:
    """A value that may be anything, without what would be misread."""
    return "".join([char if char.isprintable() else "?" for char in value.translate(_UNSAFE)])


def _bad(name: str, value: str) -> BadAttribute:
    return BadAttribute(f"Bad {name} syntax: {value}")
