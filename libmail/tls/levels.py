"""Security levels of TLS, weakest first, and the names that main.cf and the policy tables use.

What a level requires is in the properties of `Level`. The level of a server is decided in
`libmail.tls.server_level`, that of a client in `libmail.tls.policy`.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Level", "level_named"]


class Level(IntEnum):
    """smtp_tls_security_level and smtpd_tls_security_level."""

    NONE = 0
    MAY = 1
    ENCRYPT = 2
    FINGERPRINT = 3
    HALF_DANE = 4  # DANE, found by way of an MX record that DNSSEC does not protect
    DANE = 5
    DANE_ONLY = 6
    VERIFY = 7
    SECURE = 8

    @property
    def label(self) -> str:
        """The name as in main.cf: "dane-only"."""
        return _LABELS[self]

    @property
    def enforced(self) -> bool:
        """Whether TLS is mandatory."""
        return self >= Level.ENCRYPT

    @property
    def matches_peer(self) -> bool:
        """Whether the identity of the peer has to be verified."""
        return self >= Level.FINGERPRINT

    @property
    def by_dane(self) -> bool:
        """Whether TLSA records verify the peer (RFC 7672)."""
        return Level.HALF_DANE <= self <= Level.DANE_ONLY

    @property
    def by_authority(self) -> bool:
        """Whether certificate authorities verify the peer, for the right name."""
        return self >= Level.VERIFY


_LABELS = {level: level.name.lower().replace("_", "-") for level in Level}
_LEVELS = {label: level for level, label in _LABELS.items()}


def level_named(name: str) -> Level | None:
    """The level of that name, in upper or lower case; None if there is none."""
    return _LEVELS.get(name.lower())
