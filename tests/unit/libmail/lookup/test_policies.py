"""check_policy_service: how it is configured, what a server is told, and what its answers do."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from libmail.config import Config
from libmail.config.main_cf import Entry
from libmail.log import Fatal
from libmail.lookup.context import LiveLookups
from libmail.lookup.facts import Client, Facts, Sasl, Tls, Verdict
from libmail.lookup.lists import compile_lists
from libmail.lookup.params import RestrictionParams
from libmail.lookup.policies import (
    Attributes,
    PolicyQuestion,
    PolicySettings,
    attributes,
    parse_policy,
)
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.lookup.restrictions import Restrictions
from libmail.tls.facts import Agreed, Trust

SERVER = "inet:127.0.0.1:10031"
USUAL = PolicySettings(
    SERVER, 100.0, 300.0, 1000.0, 0, 2, 1.0, "451 4.3.5 Server configuration problem", ""
)


def params(**values: str) -> RestrictionParams:
    config = Config("", [Entry(name, value, "", 0) for name, value in values.items()])
    return config.load(RestrictionParams)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (SERVER, USUAL),
        ("unix:private/policy", replace(USUAL, endpoint="unix:private/policy")),
        (f"{{ {SERVER} }}", USUAL),
        (
            f"{{{SERVER}, timeout=10s,try_limit=1 max_idle=1m, max_ttl=1h}}",
            replace(USUAL, timeout=10.0, try_limit=1, max_idle=60.0, max_ttl=3600.0),
        ),
        (
            f"{{ {SERVER}, {{ default_action = 451 4.3.0 not now }}, retry_delay=2s,"
            " request_limit=5, policy_context=in }",
            replace(
                USUAL,
                default_action="451 4.3.0 not now",
                retry_delay=2.0,
                request_limit=5,
                policy_context="in",
            ),
        ),
    ],
)
def test_servers(text: str, wanted: PolicySettings) -> None:
    assert parse_policy(text, params()) == wanted


def test_parameters_are_defaults() -> None:
    given = params(smtpd_policy_service_timeout="3s", smtpd_policy_service_policy_context="x")
    assert parse_policy(SERVER, given) == replace(USUAL, timeout=3.0, policy_context="x")


@pytest.mark.parametrize(
    "text",
    [
        "{ }",
        "{ inet:127.0.0.1:10031",
        "{ inet:127.0.0.1:10031 } x",
        "{ inet:127.0.0.1:10031, patience=1 }",
        "{ inet:127.0.0.1:10031, timeout }",
        "{ inet:127.0.0.1:10031, timeout=soon }",
        "{ inet:127.0.0.1:10031, try_limit=0 }",
        "{ inet:127.0.0.1:10031, { timeout = 1 }",
        "inet:127.0.0.1:nowhere-at-all",
        "smtp:there",
    ],
)
def test_mistakes_in_a_server(text: str) -> None:
    with pytest.raises(Fatal):
        parse_policy(text, params())


# what a server is told

_NAMES = """
    request protocol_state protocol_name client_address client_name client_port
    reverse_client_name server_address server_port helo_name sender recipient recipient_count
    queue_id instance size etrn_domain stress ccert_subject ccert_issuer ccert_fingerprint
    ccert_pubkey_fingerprint encryption_protocol encryption_cipher encryption_keysize tls_sni
    policy_context compatibility_level mail_version
"""
NAMES = _NAMES.split()
AGREED = Agreed("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, 256, resumed=False)


def told(facts: Facts, context: str = "") -> dict[str, str]:
    return dict(attributes(facts, params(stress="yes", compatibility_level="3.6"), context))


def session(where: str, **mail: object) -> Facts:
    client = Client(
        "192.0.2.7", "2525", "c.test", "r.test", server_address="192.0.2.1", server_port="25"
    )
    facts = Facts(client, helo_name="h.test", where=where)
    for name, value in mail.items():
        setattr(facts.mail, name, value)
    return facts


def names(found: Attributes) -> list[str]:
    return [name for name, _ in found]


def test_order_of_attributes() -> None:
    assert names(attributes(session("CONNECT"), params(), "")) == NAMES
    facts = session("RCPT")
    facts.sasl = Sasl("PLAIN", "alice", "alice@example.test")
    with_sasl = list(NAMES)
    with_sasl[18:18] = ["sasl_method", "sasl_username", "sasl_sender"]
    assert names(attributes(facts, params(), "")) == with_sasl
    enabled = params(smtpd_sasl_auth_enable="yes")
    assert names(attributes(session("RCPT"), enabled, "")) == with_sasl


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (
            session("CONNECT"),
            {
                "protocol_state": "CONNECT",
                "client_name": "c.test",
                "reverse_client_name": "r.test",
                "server_port": "25",
                "sender": "",
                "size": "0",
                "stress": "yes",
                "compatibility_level": "3.6",
                "encryption_keysize": "0",
            },
        ),
        (
            session("RCPT", sender="", recipient="b@x", recipient_count=2, size=9, queue_id="Q"),
            {"recipient": "b@x", "recipient_count": "0", "size": "9", "queue_id": "Q"},
        ),
        (
            session("BDAT", sender="a@x", recipient_count=2, instance="1.2"),
            {"protocol_state": "DATA", "recipient_count": "2", "instance": "1.2", "recipient": ""},
        ),
        (session("END-OF-MESSAGE", recipient_count=3), {"recipient_count": "3"}),
        (session("ETRN", recipient="site.test"), {"etrn_domain": "site.test", "recipient": ""}),
    ],
)
def test_attributes(facts: Facts, wanted: Mapping[str, str]) -> None:
    found = told(facts)
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("trust", "subject"),
    [(Trust.ANONYMOUS, ""), (Trust.UNTRUSTED, ""), (Trust.TRUSTED, "my+20name")],
)
def test_certificates_that_nobody_vouches_for_have_no_name(trust: Trust, subject: str) -> None:
    facts = session("RCPT")
    facts.tls = Tls(AGREED, trust, "my name", "ca", "AA:BB", "CC:DD", "asked.test")
    found = told(facts)
    assert (found["ccert_subject"], found["ccert_fingerprint"]) == (subject, "AA:BB")
    assert (found["encryption_cipher"], found["encryption_keysize"]) == (AGREED.cipher, "256")
    assert found["tls_sni"] == "asked.test"


# what its answers do


def decided(action: str, **settings: str) -> tuple[Verdict, list[PolicyQuestion]]:
    """The verdict about a recipient, live and from its record, and what was asked."""
    values = {
        "smtpd_relay_restrictions": "",
        "smtpd_recipient_restrictions": f"check_policy_service {SERVER}, reject",
        "smtpd_reject_unlisted_recipient": "no",
        "smtpd_restriction_classes": "mine",
        "mine": "permit",
        **settings,
    }
    config = Config("", [Entry(name, value, "", 0) for name, value in values.items()])
    load = config.load(RestrictionParams)
    restrictions = Restrictions(load, compile_lists(load, {"mine": ["permit"]}))
    questions: list[PolicyQuestion] = []

    async def ask(question: PolicyQuestion) -> str:
        questions.append(question)
        return action

    asked: list[Asked] = []
    facts = session("RCPT", sender="a@x.test", recipient="b@y.test")
    live = RecordingLookups(LiveLookups({PolicyQuestion: ask}), asked)
    verdict = asyncio.run(restrictions.recipient(facts, live))
    assert asyncio.run(restrictions.recipient(facts, ReplayedLookups(asked))) == verdict
    return verdict, questions


REFUSED = "<b@y.test>: Recipient address rejected"
LAST = f"554 5.7.1 {REFUSED}: Access denied"


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        ("OK", ""),
        ("ok", ""),
        ("123", ""),
        ("DUNNO", LAST),
        ("", LAST),
        ("REJECT", LAST),
        ("reject 5.7.9 with a text", f"554 5.7.9 {REFUSED}: with a text"),
        ("450 4.2.0 Greylisted", f"450 4.2.0 {REFUSED}: Greylisted"),
        ("DEFER later", f"450 4.7.1 {REFUSED}: later"),
        ("DEFER_IF_REJECT perhaps", f"450 4.7.1 {REFUSED}: perhaps"),
        ("DEFER_IF_PERMIT 4.2.0 grey", LAST),
        ("WARN of it", LAST),
        ("permit", ""),
        ("mine", ""),
        ("reject_unauth_pipelining, mine", ""),
        ("NONSENSE", "451 4.3.5 Server configuration error"),
        ("check_client_access inline:{x=OK}", "451 4.3.5 Server configuration error"),
    ],
)
def test_actions(action: str, wanted: str) -> None:
    reply = decided(action)[0].reply
    assert ("" if reply is None else reply.line) == wanted


def test_a_permit_may_become_a_deferral() -> None:
    lists = f"check_policy_service {SERVER}, permit, reject"
    reply = decided("DEFER_IF_PERMIT 4.2.0 grey", smtpd_recipient_restrictions=lists)[0].reply
    assert reply is not None
    assert reply.line == f"450 4.2.0 {REFUSED}: grey"


def test_actions_that_do_not_decide_are_effects() -> None:
    effects = decided("PREPEND X-Seen: yes")[0].effects
    assert (effects[0].action, effects[0].argument) == ("prepend", "X-Seen: yes")
    assert decided("")[0].warnings[0] == f"access table {SERVER} entry  has empty value"


def test_each_place_has_its_settings() -> None:
    lists = (
        f"check_policy_service {{ {SERVER}, policy_context=one }},"
        f" check_policy_service {{ {SERVER}, policy_context=two }}, reject"
    )
    questions = decided("DUNNO", smtpd_recipient_restrictions=lists)[1]
    contexts = [dict(question.attributes)["policy_context"] for question in questions]
    assert contexts == ["one", "two"]
    assert len({question.settings for question in questions}) == 2


@pytest.mark.parametrize("rest", ["", "10031", "reject"])
def test_no_server(rest: str) -> None:
    lists = f"check_policy_service {rest}"
    verdict, questions = decided("OK", smtpd_client_restrictions=lists)
    assert verdict.reply is not None
    assert verdict.reply.line == "451 4.3.5 Server configuration error"
    assert questions == []
