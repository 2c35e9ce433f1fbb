"""Security levels of TLS, weakest first, and the names that main.cf and the policy tables use."""

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
        """As it is written: "dane-only"."""
        return self.name.lower().replace("_", "-")

    @property
    def enforced(self) -> bool:
        """Whether mail must not go without TLS."""
        return self >= Level.ENCRYPT

    @property
    def matches_peer(self) -> bool:
        """Whether the certificate or key of the peer has to be a certain one."""
        return self >= Level.FINGERPRINT

    @property
    def by_dane(self) -> bool:
        """Whether TLSA records say which certificate is right."""
        return Level.HALF_DANE <= self <= Level.DANE_ONLY

    @property
    def by_authority(self) -> bool:
        """Whether a certificate authority must have signed, for the right name."""
        return self >= Level.VERIFY


_LEVELS = {level.label: level for level in Level}


def level_named(name: str) -> Level | None:
    """The level of that name, in any case; None if there is none."""
    return _LEVELS.get(name.lower())
