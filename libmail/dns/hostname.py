"""What is a host name, what is an address, what is an address literal.

The checks are those that a mail system needs before it trusts a name from DNS or from a peer:
RFC 1123 §2.1 with underscores, which exist in practice.
"""

from __future__ import annotations

import encodings.idna
import re
import socket
from typing import Final

from libmail.config.hostname import hostname_problem

__all__ = [
    "IDNA",
    "ascii_domain",
    "hostaddr_problem",
    "hostname_problem",
    "literal_address",
    "valid_hostaddr",
    "valid_hostliteral",
    "valid_hostname",
    "valid_ipv4",
    "valid_ipv6",
]

_MAX_NAME: Final = 255
_MAX_OCTET: Final = 3  # digits
_MAX_COLONS: Final = 7
_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_GOOD: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NUMERIC: Final = re.compile(r"[0-9.]*", re.ASCII)
_MAX_LABEL: Final = 63
_DEVIATIONS: Final = re.compile("([\u00df\u03c2\u200c\u200d])")  # sharp s, final sigma, joiners
_DOTS: Final = re.compile("[.\u3002\uff0e\uff61]")
_IPV6_PREFIX: Final = "ipv6:"


class _Idna:
    """Which rules a process goes by: transitional ones map what IDNA 2008 lets stand for itself."""

    transitional = False


IDNA: Final = _Idna()
"""Set once, from enable_idna2003_compatibility."""


def ascii_domain(name: str) -> str:
    """A domain in ASCII form (UTS #46), without a dot at the end; "" if it has none."""
    if name.isascii():
        return name.removesuffix(".")
    try:
        if IDNA.transitional or not _DEVIATIONS.search(name):
            return name.encode("idna").decode("ascii").removesuffix(".")
        return ".".join(_ascii_label(label) for label in _DOTS.split(name.removesuffix(".")))
    except UnicodeError:
        return ""


def _ascii_label(label: str) -> str:
    """One label as it is after mapping, but for what the older rules would map, UTS #46 §6.

    Raises UnicodeError.
    """
    pieces = _DEVIATIONS.split(label)
    prepared = "".join(
        [piece if at % 2 else encodings.idna.nameprep(piece) for at, piece in enumerate(pieces)]
    )
    if not prepared.isascii():
        prepared = f"xn--{prepared.encode('punycode').decode('ascii')}"
    if not 0 < len(prepared) <= _MAX_LABEL:
        raise UnicodeError("label empty or too long")
    return prepared


def valid_hostname(name: str, *, wildcard: bool = False) -> bool:
    """Tell whether the text is a host name in ASCII form, without a dot at the end.

    wildcard: the first label may be "*", as that of names in DNS may, RFC 4592 §2.1.1.
    """
    if wildcard and name.startswith("*.") and len(name) <= _MAX_NAME:
        name = name[2:]
    return (
        len(name) <= _MAX_NAME
        and _GOOD.fullmatch(name) is not None
        and _NUMERIC.fullmatch(name) is None
    )


def valid_ipv4(text: str) -> bool:
    """Tell whether the text is an IPv4 address: four decimal octets, the first not 0."""
    try:
        octets = socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return octets[0] != 0 or not any(octets)


def valid_ipv6(text: str) -> bool:
    """Tell whether the text is an IPv6 address, without a zone."""
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return False
    return True


def valid_hostaddr(text: str) -> bool:
    """Tell whether the text is an address, without brackets and prefix."""
    return valid_ipv6(text) if ":" in text else valid_ipv4(text)


def hostaddr_problem(text: str, *, ipv6: bool) -> str:
    """Say why a text is no address, in the words of the log; "" for a good one."""
    if valid_ipv6(text) if ipv6 else valid_ipv4(text):
        return ""
    return _ipv6_problem(text) if ipv6 else _ipv4_problem(text)


def _ipv4_problem(text: str) -> str:
    who = "valid_ipv4_hostaddr"
    if (bad := re.search(r"[^0-9.]", text)) is not None:
        return f"{who}: invalid character {ord(bad.group())}(decimal): {text}"
    if text.startswith(".") or text.endswith(".") or ".." in text:
        return f"{who}: misplaced dot: {text}"
    octets = text.split(".") if text else []
    if any(len(octet) > _MAX_OCTET or int(octet) > 255 for octet in octets):
        return f"{who}: invalid octet value: {text}"
    if len(octets) == 4 and int(octets[0]) == 0:
        return f"{who}: bad initial octet value: {text}"
    return f"{who}: invalid octet count: {text}"


def _ipv6_problem(text: str) -> str:
    who = "valid_ipv6_hostaddr"
    if (bad := re.search(r"[^0-9A-Fa-f:.]", text)) is not None:
        return f"{who}: invalid character {ord(bad.group())}(decimal) in IPv6 address: {text}"
    if text.count("::") + text.count(":::") > 1:
        return f"{who}: too many `::' in IPv6 address: {text}"
    if text.count(":") < 2:
        return f"{who}: too few `:' in IPv6 address: {text}"
    if text[0] == ":" and text[1] != ":":
        return f"{who}: bad null first field in IPv6 address: {text}"
    if text[-1] == ":" and text[-2] != ":":
        return f"{who}: bad null last field in IPv6 address: {text}"
    tail = text[text.rfind(":") + 1 :]
    if "." in tail and not valid_ipv4(tail):
        return _ipv4_problem(tail)
    if text.count(":") > _MAX_COLONS:
        return f"{who}: too many `:' in IPv6 address: {text}"
    return f"{who}: malformed IPv6 address: {text}"


def literal_address(text: str) -> str | None:
    """Return the address of a literal, or None (RFC 5321 §4.1.3).

    "[192.0.2.1]" gives "192.0.2.1", "[IPv6:2001:db8::1]" gives "2001:db8::1".
    """
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inner = text[1:-1]
    if inner[: len(_IPV6_PREFIX)].lower() == _IPV6_PREFIX:
        address = inner[len(_IPV6_PREFIX) :]
        return address if valid_ipv6(address) else None
    return inner if valid_ipv4(inner) else None


def valid_hostliteral(text: str) -> bool:
    """Tell whether the text is an address literal with its brackets."""
    return literal_address(text) is not None
