"""SASL mechanisms: what each is good for, and which of them are acceptable.

smtpd_sasl_security_options and its kin say what a mechanism may not be (noplaintext, noactive,
nodictionary, noanonymous) and what it must be (forward_secrecy, mutual_auth).
"""

import re
from collections.abc import Iterable
from enum import Flag, auto
from typing import Final, NamedTuple

__all__ = [
    "Mechanism",
    "Property",
    "SecurityOptions",
    "parse_security_options",
    "usable",
    "valid_name",
]

# sasl-mech = 1*20mech-char; mech-char = UPPER-ALPHA / DIGIT / HYPHEN / UNDERSCORE   RFC 4422 §3.1
_NAME: Final = re.compile(r"[A-Z0-9_-]{1,20}")


class Property(Flag):
    """What is true of a mechanism."""

    NONE = 0
    PLAINTEXT = auto()  # the password goes over the line
    ACTIVE = auto()  # open to active attacks
    DICTIONARY = auto()  # open to dictionary attacks of a listener
    ANONYMOUS = auto()
    FORWARD_SECRECY = auto()
    MUTUAL_AUTH = auto()
    PRIVATE = auto()  # not to be offered
    BOUND = auto()  # to the channel: only where there are channel bindings


_KNOWN: Final = {
    "ANONYMOUS": Property.ANONYMOUS,
    "CRAM-MD5": Property.DICTIONARY | Property.ACTIVE,
    "DIGEST-MD5": Property.DICTIONARY | Property.ACTIVE | Property.MUTUAL_AUTH,
    "LOGIN": Property.PLAINTEXT,
    "OAUTHBEARER": Property.PLAINTEXT,
    "PLAIN": Property.PLAINTEXT,
    "SCRAM-SHA-1": Property.DICTIONARY | Property.ACTIVE | Property.MUTUAL_AUTH,
    "SCRAM-SHA-256": Property.DICTIONARY | Property.ACTIVE | Property.MUTUAL_AUTH,
    "SCRAM-SHA-256-PLUS": (
        Property.DICTIONARY | Property.ACTIVE | Property.MUTUAL_AUTH | Property.BOUND
    ),
    "XOAUTH2": Property.PLAINTEXT,
}
_FORBIDDEN: Final = {
    "noplaintext": Property.PLAINTEXT,
    "noactive": Property.ACTIVE,
    "nodictionary": Property.DICTIONARY,
    "noanonymous": Property.ANONYMOUS,
}
_REQUIRED: Final = {
    "forward_secrecy": Property.FORWARD_SECRECY,
    "mutual_auth": Property.MUTUAL_AUTH,
}


def valid_name(name: str) -> bool:
    """Whether this can be the name of a mechanism, in upper case."""
    return _NAME.fullmatch(name) is not None


class Mechanism(NamedTuple):
    """One that a server offers."""

    name: str
    properties: Property

    @classmethod
    def known(cls, name: str) -> "Mechanism":
        """By name, with what is generally known of it."""
        return cls(name, _KNOWN.get(name, Property.NONE))


def usable(mechanisms: Iterable[Mechanism], *, bound: bool) -> tuple[Mechanism, ...]:
    """Those that can be used. bound: whether there are channel bindings."""
    return tuple(one for one in mechanisms if bound or Property.BOUND not in one.properties)


class SecurityOptions(NamedTuple):
    """What mechanisms may not be, and must be."""

    forbidden: Property = Property.NONE
    required: Property = Property.NONE

    def accept(self, mechanism: Mechanism) -> bool:
        """Whether a mechanism may be used."""
        properties = mechanism.properties
        return (
            not properties & (self.forbidden | Property.PRIVATE)
            and self.required & properties == self.required
        )


def parse_security_options(words: Iterable[str]) -> SecurityOptions:
    """The value of smtpd_sasl_security_options. Raises ValueError that names what is unknown."""
    forbidden = required = Property.NONE
    for word in words:
        name = word.lower()
        if name in _FORBIDDEN:
            forbidden |= _FORBIDDEN[name]
        elif name in _REQUIRED:
            required |= _REQUIRED[name]
        else:
            raise ValueError(f"unknown SASL security option: {word}")
    return SecurityOptions(forbidden, required)
