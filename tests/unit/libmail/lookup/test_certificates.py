"""Restrictions about the certificate of a client."""

from __future__ import annotations

import pytest

from libmail.lookup.certificates import CertificateTable, parse_ccert_table
from libmail.lookup.facts import Tls
from libmail.tls.facts import Agreed, Trust
from tests.unit.libmail.lookup.test_restrictions import World

AGREED = Agreed("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256, resumed=False)
ANONYMOUS = Tls(AGREED, Trust.ANONYMOUS)
SHOWN = Tls(AGREED, Trust.UNTRUSTED, "client.test", "CA", "AA:BB", "CC:DD")
TRUSTED = Tls(AGREED, Trust.TRUSTED, "client.test", "CA", "AA:BB", "CC:DD")
RCPT = "smtpd_recipient_restrictions"
REFUSED = "554 5.7.1 <client.test>: Client certificate rejected:"
ACCESS = "check_ccert_access"


def answer(tls: Tls | None, restrictions: str, **settings: str) -> str:
    """The refusal of a recipient, "ok" for none; warnings behind it."""
    settings = {"smtpd_tls_ask_ccert": "yes"} | settings | {RCPT: restrictions}
    world = World(settings, tls=tls)
    verdict = world.decide(world.live())
    reply = "ok" if verdict.reply is None else verdict.reply.line
    return " | ".join([reply, *verdict.warnings])


@pytest.mark.parametrize(
    ("tls", "table", "want"),
    [
        (SHOWN, "inline:{{aa:bb=REJECT no}}", f"{REFUSED} no"),
        (SHOWN, "inline:{{CC:DD=REJECT key}}", f"{REFUSED} key"),
        (SHOWN, "inline:{{CC:DD=REJECT key}, {AA:BB=REJECT no}}", f"{REFUSED} no"),
        (SHOWN, "inline:{{client.test=REJECT no}}", "ok"),
        (SHOWN, "{ inline:{client.test=REJECT} { search_order = subject_cn } }",
         f"{REFUSED} Access denied"),
        (SHOWN, "{ inline:{CA=REJECT}, { search_order = pubkey_fingerprint, issuer_cn } }",
         f"{REFUSED} Access denied"),
        (SHOWN, "{ inline:{AA:BB=REJECT} { search_order = pubkey_fingerprint } }", "ok"),
        (SHOWN, "{ inline:{AA:BB=REJECT} { search_order = nonsense } }",
         "451 4.3.5 Server configuration error | unknown search type 'nonsense' in"
         " '{ inline:{AA:BB=REJECT} { search_order = nonsense } }'"),
        (SHOWN, "fail:x", "451 4.3.5 <client.test>: Client certificate rejected:"
         " Server configuration error"),
        (ANONYMOUS, "inline:{{aa:bb=REJECT no}}", "ok"),
        (None, "inline:{{aa:bb=REJECT no}}", "ok"),
    ],
)  # fmt: skip
def test_check_ccert_access(tls: Tls | None, table: str, want: str) -> None:
    assert answer(tls, f"{ACCESS} {table}") == want


RELAY = "permit_tls_clientcerts, reject"
ALL = "permit_tls_all_clientcerts, reject"
DENIED = "554 5.7.1 <alice@example.test>: Recipient address rejected: Access denied"


@pytest.mark.parametrize(
    ("tls", "restrictions", "listed", "want"),
    [
        (SHOWN, RELAY, "inline:{aa:bb=x}", "ok"),
        (SHOWN, RELAY, "inline:{cc:dd=x}", "ok"),
        (SHOWN, RELAY, "inline:{client.test=x}", DENIED),
        (SHOWN, RELAY, "", DENIED),
        (TRUSTED, RELAY, "inline:{x=x}", DENIED),
        (TRUSTED, ALL, "", "ok"),
        (SHOWN, ALL, "", DENIED),
        (SHOWN, ALL, "inline:{aa:bb=x}", "ok"),
        (ANONYMOUS, ALL, "inline:{aa:bb=x}", DENIED),
        (None, RELAY, "inline:{aa:bb=x}", DENIED),
        (SHOWN, RELAY, "fail:x", "451 4.3.0 <alice@example.test>: Temporary lookup failure |"
         " relay_clientcerts: lookup error for fingerprint 'AA:BB', pkey fingerprint CC:DD"),
    ],
)  # fmt: skip
def test_relay_clientcerts(tls: Tls | None, restrictions: str, listed: str, want: str) -> None:
    assert answer(tls, restrictions, relay_clientcerts=listed) == want


@pytest.mark.parametrize("name", ["permit_tls_clientcerts", "permit_tls_all_clientcerts"])
def test_nobody_was_asked(name: str) -> None:
    warning = f'{name} is requested, but "smtpd_tls_ask_ccert = no"'
    settings = {"relay_clientcerts": "inline:{x=y}", "smtpd_tls_ask_ccert": "no"}
    assert answer(ANONYMOUS, name, **settings) == f"ok | {warning}"
    assert answer(None, name, **settings) == "ok"


def test_sessions_in_the_clear() -> None:
    refusal = "Session encryption is required"
    assert answer(None, "reject_plaintext_session") == f"450 4.7.1 {refusal}"
    hard = answer(None, "reject_plaintext_session", plaintext_reject_code="550")
    assert hard == f"550 5.7.1 {refusal}"
    assert answer(ANONYMOUS, "reject_plaintext_session") == "ok"


@pytest.mark.parametrize("text", ["{ }", "{ x }", "{ a:b { x = y } }", "{ a:b x }", "{ {} }"])
def test_what_is_no_table(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_ccert_table(text)


def test_the_usual_order() -> None:
    assert parse_ccert_table("{ a:b }") == CertificateTable("a:b")
