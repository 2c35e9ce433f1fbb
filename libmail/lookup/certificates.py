"""Restrictions about the certificate that a client has shown.

Certificates and public keys are known by their fingerprints (smtpd_tls_fingerprint_digest), whether
an authority vouches for them or not.
"""

from functools import partial
from typing import Final, NamedTuple

from libmail.lookup.access import act
from libmail.lookup.check import Check, Rule
from libmail.lookup.context import LookupFailure
from libmail.lookup.facts import CCERT, DUNNO, PERMIT, Outcome, Subject, Tls
from libmail.tables.braces import split_list, strip_braces
from libmail.tls.facts import Trust

__all__ = [
    "CertificateTable",
    "ccert_rule",
    "check_ccert_access",
    "parse_ccert_table",
    "permit_tls_all_clientcerts",
    "permit_tls_clientcerts",
]

_USUAL: Final = ("cert_fingerprint", "pubkey_fingerprint")
_KEYS: Final = frozenset({*_USUAL, "subject_cn", "issuer_cn"})
_RELAY: Final = "relay_clientcerts"


class CertificateTable(NamedTuple):
    """A table, and what of a certificate is looked for in it, in this order."""

    table: str
    order: tuple[str, ...] = _USUAL


def parse_ccert_table(text: str) -> CertificateTable:
    """`{ type:table, { search_order = cert_fingerprint, ... } }`. Raises ValueError."""
    words = split_list(strip_braces(text))
    if not words or ":" not in words[0]:
        raise ValueError(f"requires type:table argument: {text}")
    order: tuple[str, ...] = _USUAL
    for word in words[1:]:
        name, equals, value = (strip_braces(word) if word.startswith("{") else word).partition("=")
        if not equals:
            raise ValueError(f"malformed map attribute in '{text}': missing '=' after {name}")
        if name.strip() != "search_order":
            raise ValueError(f"unknown attribute {name.strip()} in '{text}'")
        order = tuple(value.lower().replace(",", " ").split())
        for unknown in set(order) - _KEYS:
            raise ValueError(f"unknown search type '{unknown}' in '{text}'")
    return CertificateTable(words[0], order)


def ccert_rule(table: CertificateTable) -> Rule:
    """check_ccert_access with an order of its own."""
    return Rule(f"check_ccert_access {table.table}", partial(_search, table.order), table.table)


def _shown(check: Check, name: str) -> Tls | None:
    """What a client has shown; None if it has shown no certificate, or was not asked for one."""
    tls = check.facts.tls
    if tls is None:
        return None
    if tls.trust is Trust.ANONYMOUS:
        if not check.params.smtpd_tls_ask_ccert:
            check.warn(f'{name} is requested, but "smtpd_tls_ask_ccert = no"')
        return None
    return tls


async def check_ccert_access(check: Check, subject: Subject, table: str) -> Outcome:
    """check_ccert_access type:table."""
    return await _search(_USUAL, check, subject, table)


async def _search(order: tuple[str, ...], check: Check, _: Subject, table: str) -> Outcome:
    tls = _shown(check, "check_ccert_access")
    if tls is None:
        return DUNNO
    keys = {
        "cert_fingerprint": tls.fingerprint,
        "pubkey_fingerprint": tls.key,
        "subject_cn": tls.subject,
        "issuer_cn": tls.issuer,
    }
    try:
        for key in filter(None, (keys[name] for name in order)):
            value = await check.lookups.find(table, key)
            if value is not None:
                check.verdict.decided_by = f"{table} {key}"
                return await act(check, CCERT, table, value)
    except LookupFailure:
        text = check.rejected(CCERT, "Server configuration error")
        return check.reject(CCERT, 451, "4.3.5", text)
    return DUNNO


async def permit_tls_clientcerts(check: Check, subject: Subject, _: str) -> Outcome:
    """A certificate or public key that relay_clientcerts lists."""
    return await _listed(check, subject, "permit_tls_clientcerts")


async def permit_tls_all_clientcerts(check: Check, subject: Subject, _: str) -> Outcome:
    """Also any certificate that an authority vouches for."""
    tls = check.facts.tls
    if tls is not None and tls.trust in (Trust.TRUSTED, Trust.VERIFIED):
        return PERMIT
    return await _listed(check, subject, "permit_tls_all_clientcerts")


async def _listed(check: Check, subject: Subject, name: str) -> Outcome:
    tls = _shown(check, name)
    if tls is None or not check.lookups.has(_RELAY):
        return DUNNO
    try:
        for key in filter(None, (tls.fingerprint, tls.key)):
            if await check.lookups.find(_RELAY, key) is not None:
                return PERMIT
    except LookupFailure:
        check.warn(
            f"{_RELAY}: lookup error for fingerprint '{tls.fingerprint}',"
            f" pkey fingerprint {tls.key}"
        )
        return check.reject_lookup(check.name(subject))
    return DUNNO
