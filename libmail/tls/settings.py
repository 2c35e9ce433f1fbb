"""Protocols, ciphers, groups and options as main.cf writes them, turned into what OpenSSL takes.

Pure functions; what is wrong with a setting is a TlsConfigError that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from libmail.tls.errors import TlsConfigError

__all__ = [
    "ALL_WORKAROUNDS",
    "OPTIONS",
    "WORKAROUNDS",
    "CipherLists",
    "Protocols",
    "cipher_list",
    "grade_groups",
    "option_bits",
    "parse_protocols",
    "session_seconds",
    "words",
]

_SEPARATORS: Final = re.compile(r"[\s,:]+")
_VERSIONS: Final[Mapping[str, int]] = {
    "sslv2": 0x0002,
    "sslv3": 0x0300,
    "tlsv1": 0x0301,
    "tlsv1.1": 0x0302,
    "tlsv1.2": 0x0303,
    "tlsv1.3": 0x0304,
}
_OFF: Final[Mapping[int, int]] = {  # SSL_OP_NO_..., by version; SSLv2 is gone from the library
    0x0002: 0,
    0x0300: 1 << 25,
    0x0301: 1 << 26,
    0x0302: 1 << 28,
    0x0303: 1 << 27,
    0x0304: 1 << 29,
}
_HEX: Final = re.compile(r"(?:0[xX]|0)?([0-9a-fA-F]{1,4})")

# Bits of SSL_CTX_set_options(3). Workarounds with 0 are those that the library has dropped.
WORKAROUNDS: Final[Mapping[str, int]] = {
    "CRYPTOPRO_TLSEXT_BUG": 1 << 31,
    "DONT_INSERT_EMPTY_FRAGMENTS": 1 << 11,
    "LEGACY_SERVER_CONNECT": 1 << 2,
    "MICROSOFT_BIG_SSLV3_BUFFER": 0,
    "MICROSOFT_SESS_ID_BUG": 0,
    "MSIE_SSLV2_RSA_PADDING": 0,
    "CVE-2005-2969": 0,
    "NETSCAPE_CHALLENGE_BUG": 0,
    "NETSCAPE_REUSE_CIPHER_CHANGE_BUG": 0,
    "CVE-2010-4180": 0,
    "SSLEAY_080_CLIENT_DH_BUG": 0,
    "SSLREF2_REUSE_CERT_TYPE_BUG": 0,
    "TLS_BLOCK_PADDING_BUG": 0,
    "TLS_D5_BUG": 0,
    "TLS_ROLLBACK_BUG": 1 << 23,
    "TLSEXT_PADDING": 1 << 4,
}
OPTIONS: Final[Mapping[str, int]] = {
    "ENABLE_MIDDLEBOX_COMPAT": 1 << 20,
    "LEGACY_SERVER_CONNECT": 1 << 2,
    "NO_TICKET": 1 << 14,
    "NO_COMPRESSION": 1 << 17,
    "NO_RENEGOTIATION": 1 << 30,
    "NO_SESSION_RESUMPTION_ON_RENEGOTIATION": 1 << 16,
    "PRIORITIZE_CHACHA": 1 << 21,
}
# SSL_OP_ALL: CRYPTOPRO_TLSEXT_BUG, DONT_INSERT_EMPTY_FRAGMENTS, TLSEXT_PADDING, SAFARI_ECDHE_ECDSA
ALL_WORKAROUNDS: Final = 1 << 31 | 1 << 11 | 1 << 4 | 1 << 6
_SHORTEST: Final = 120.0  # seconds that a session is kept, if at all
_LONGEST: Final = 100 * 86400.0
_GRADES: Final = ("export", "low", "medium", "high", "null")


@dataclass(frozen=True, slots=True)
class Protocols:
    """Which versions may be used. low, high: numbers like 0x0303; 0 is no bound.

    options: bits that switch versions off between the bounds.
    """

    low: int = 0
    high: int = 0
    options: int = 0


@dataclass(frozen=True, slots=True)
class CipherLists:
    """What the grades mean: tls_*_cipherlist. An empty one is that of `medium`."""

    tls_high_cipherlist: str
    tls_medium_cipherlist: str
    tls_low_cipherlist: str
    tls_export_cipherlist: str
    tls_null_cipherlist: str

    def of(self, grade: str) -> str:
        """The list of a grade, which must be one of the five."""
        by_name = {
            "high": self.tls_high_cipherlist,
            "low": self.tls_low_cipherlist,
            "export": self.tls_export_cipherlist,
            "null": self.tls_null_cipherlist,
        }
        return by_name.get(grade) or self.tls_medium_cipherlist


def words(text: str) -> list[str]:
    """The elements of a list that white space, commas or colons separate."""
    return [word for word in _SEPARATORS.split(text) if word]


def parse_protocols(text: str) -> Protocols:
    """smtp_tls_protocols and its like: `>=TLSv1.2`, `<=0304`, `!SSLv3`, or names to include.

    Raises TlsConfigError.
    """
    low = high = 0
    excluded: set[int] = set()
    included: set[int] = set()
    for word in words(text):
        if word.startswith(">="):
            low = _bound(word[2:], text)
        elif word.startswith("<="):
            high = _bound(word[2:], text)
        elif word.startswith("!"):
            excluded.add(_named(word[1:], text))
        else:
            included.add(_named(word, text))
    if included:
        excluded |= set(_OFF) - included
    options = 0
    for version in excluded:
        options |= _OFF[version]
    return Protocols(low, high, options)


def _named(name: str, text: str) -> int:
    version = _VERSIONS.get(name.lower())
    if version is None:
        raise TlsConfigError(f'Invalid TLS protocol list "{text}"')
    return version


def _bound(name: str, text: str) -> int:
    version = _VERSIONS.get(name.lower())
    if version is not None:
        return max(version, 0x0300)  # the library knows nothing below SSLv3
    match = _HEX.fullmatch(name)
    if match is None or not (number := int(match[1], 16)):
        raise TlsConfigError(f'Invalid TLS protocol list "{text}"')
    return number


def cipher_list(grade: str, exclusions: Iterable[str], lists: CipherLists) -> str:
    """The OpenSSL list for a grade without what is excluded.

    exclusions: lists as of smtp_tls_exclude_ciphers, `aNULL, DES+MD5`. Raises TlsConfigError.
    """
    if grade.lower() not in _GRADES:
        raise TlsConfigError(f'invalid cipher grade: "{grade}"')
    rules = [lists.of(grade.lower())]
    for exclusion in exclusions:
        for word in words(exclusion):
            if word[0] in "!+-@":
                raise TlsConfigError(f"invalid unary '!+-@' in cipher exclusion: {word}")
            rules.append(f"!{word}")
    return ":".join(rules)


def option_bits(name: str, text: str, table: Mapping[str, int]) -> int:
    """The bits that tls_ssl_options or tls_disable_workarounds name, or give as 0x... .

    name: of the parameter. Raises TlsConfigError.
    """
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text.strip()):
        return int(text, 16)
    bits = 0
    for word in words(text):
        if word.upper() not in table:
            raise TlsConfigError(f'unknown {name} value "{word}" in "{text}"')
        bits |= table[word.upper()]
    return bits


def grade_groups(grade: str, auto: str, strong: str, ultra: str) -> list[str]:
    """The curves of smtpd_tls_eecdh_grade, most preferred first. Raises TlsConfigError.

    `none` is `auto`: TLS 1.3 cannot do without.
    """
    match grade.lower():
        case "auto" | "none":
            return words(auto)
        case "strong":
            return words(strong)
        case "ultra":
            return words(ultra)
        case _:
            raise TlsConfigError(f'Invalid TLS eecdh grade "{grade}"')


def session_seconds(timeout: float) -> float:
    """How long sessions are kept: 0 for not at all, else at least two minutes."""
    return min(max(timeout, _SHORTEST), _LONGEST) if timeout > 0 else 0.0
