"""DANE: whose TLSA records count for a server, and what becomes of its policy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from libmail.log import LOG
from libmail.lookup.context import LiveLookups
from libmail.lookup.servers import Server
from libmail.lookup.tlsa import DaneParams, FoundTlsa, find_tlsa, settled
from libmail.tls.dane import Tlsa
from libmail.tls.levels import Level
from libmail.tls.policy import Policy
from libmail.tls.policy_entry import PolicyError
from tests.unit.dns_records import PlayedDns

DIGEST = "ab" * 32
RECORD = Tlsa(3, 1, 1, bytes.fromhex(DIGEST))
TLSA = f"TLSA 3 1 1 {DIGEST[:20]} {DIGEST[20:]}"
MX = Server("mx.test", "192.0.2.1", 10, True, "mx.test", True)
ALIAS = MX._replace(final="host.test")
FALLBACKS = (Policy(level=Level.MAY), Policy(level=Level.ENCRYPT))


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    return lines


def lookups(records: Iterable[str], insecure: Iterable[str] = ()) -> LiveLookups:
    return LiveLookups({}, resolver=PlayedDns(records, insecure))  # type: ignore[arg-type]


def found(server: Server, *records: str, insecure: Iterable[str] = (), force: bool = False) -> str:
    """The base domain, "" where there are no records."""
    asked = find_tlsa(lookups(records, insecure), server, 25, force=force)
    result = asyncio.run(asked)
    assert result is None or result.records == (RECORD,)
    return "" if result is None else result.base_domain


def test_of_a_host() -> None:
    own = f"_25._tcp.mx.test {TLSA}"
    assert found(MX, own) == "mx.test"
    assert found(MX) == ""
    assert found(MX, own, insecure=["_25._tcp.mx.test"]) == ""
    assert found(MX, "_25._tcp.mx.test CNAME _ca.test", f"_ca.test {TLSA}") == "mx.test"


def test_of_an_alias() -> None:
    """The name at its end comes first."""
    alias = "mx.test CNAME host.test"
    own, final = f"_25._tcp.mx.test {TLSA}", f"_25._tcp.host.test {TLSA}"
    assert found(ALIAS, alias, own, final) == "host.test"
    assert found(ALIAS, alias, own) == "mx.test"
    assert found(ALIAS, alias) == ""


def test_of_an_address_that_may_be_forged() -> None:
    alias, own = "mx.test CNAME host.test", f"_25._tcp.mx.test {TLSA}"
    final = f"_25._tcp.host.test {TLSA}"
    assert found(MX._replace(secure=False), own) == ""
    assert found(MX._replace(secure=False), own, force=True) == "mx.test"
    forged = ALIAS._replace(secure=False)
    assert found(forged, alias, own, final) == "mx.test"  # DNSSEC vouches for the alias
    assert found(forged, alias, own, final, insecure=["mx.test"]) == ""
    assert found(forged, own, final) == ""  # nor is it there any more


@pytest.mark.parametrize(
    ("server", "record", "what"),
    [
        (MX, "_25._tcp.mx.test FAIL", "TLSA lookup error for mx.test:25"),
        (ALIAS._replace(secure=False), "mx.test FAIL", "TLSA lookup error for mx.test:25"),
    ],
)
def test_what_nobody_can_say(server: Server, record: str, what: str) -> None:
    with pytest.raises(PolicyError, match=what) as caught:
        found(server, record)
    assert caught.value.warning.startswith("DANE TLSA lookup problem: no answer for ")
    assert caught.value.dsn == "4.7.5"


def test_records_that_do_not_count(logged: list[str]) -> None:
    name = "_25._tcp.mx.test"
    records = [
        f"{name} TLSA 1 1 1 {DIGEST}",
        f"{name} {TLSA}",
        f"{name} TLSA 3 1",
        f"{name} TLSA x",
    ]
    result = asyncio.run(find_tlsa(lookups(records), MX, 25, force=False))
    assert result == FoundTlsa("mx.test", (Tlsa(1, 1, 1, RECORD.data), RECORD))
    assert logged == [
        f"warning: {name} unsupported TLSA certificate usage: 1 1 1 {DIGEST.upper()}",
        f"warning: {name}: malformed TLSA record: 3 1",
        f"warning: {name}: malformed TLSA record: x",
    ]


def policy_for(
    server: Server, *records: str, level: Level = Level.DANE, insecure_mx: str = "dane"
) -> Policy:
    policy = Policy(level=level, fallbacks=FALLBACKS)
    params = DaneParams(insecure_mx, False)
    return asyncio.run(settled(policy, server, 25, lookups(records), params))


OWN = f"_25._tcp.mx.test {TLSA}"


def test_policy() -> None:
    found = policy_for(MX, OWN)
    assert (found.level, found.records, found.base_domain) == (Level.DANE, (RECORD,), "mx.test")
    assert policy_for(MX) is FALLBACKS[0]
    unusable = policy_for(MX, "_25._tcp.mx.test TLSA 0 1 1 00")
    other = Tlsa(0, 1, 1, b"\0")
    assert unusable == replace(FALLBACKS[1], unusable=(other,), base_domain="mx.test")
    assert policy_for(MX._replace(mx_secure=None), OWN) == found
    with pytest.raises(PolicyError, match="no TLSA records found"):
        policy_for(MX, level=Level.DANE_ONLY)


def test_policy_where_the_mx_record_may_be_forged() -> None:
    forged = MX._replace(mx_secure=False)
    half = policy_for(forged, OWN)
    assert half == replace(policy_for(MX, OWN), level=Level.HALF_DANE)
    assert policy_for(forged) is FALLBACKS[0]
    assert policy_for(forged, OWN, insecure_mx="encrypt") is FALLBACKS[1]
    assert policy_for(forged, insecure_mx="encrypt") is FALLBACKS[0]
    assert policy_for(forged, OWN, "_25._tcp.mx.test FAIL", insecure_mx="may") is FALLBACKS[0]
    with pytest.raises(PolicyError, match="non DNSSEC destination"):
        policy_for(forged, OWN, level=Level.DANE_ONLY)


def test_policy_where_mta_sts_is_what_is_left() -> None:
    """It knows the names of servers, so that forged MX records do no harm."""
    sts = Policy(level=Level.SECURE)
    policy = Policy(level=Level.DANE, fallbacks=(sts, sts))
    params = DaneParams("dane", False)
    for server, wanted in ((MX, Level.DANE), (MX._replace(mx_secure=False), Level.SECURE)):
        assert asyncio.run(settled(policy, server, 25, lookups([OWN]), params)).level is wanted
