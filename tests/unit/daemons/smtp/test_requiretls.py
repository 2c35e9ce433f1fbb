"""smtp(8) and REQUIRETLS: which servers get the message, and what is logged of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from daemons.smtp.requiretls import Demand, RequireTls
from libmail.agents.delivery import Bounced, Deferred, Outcome, Sent
from libmail.ipc.messages import EnvelopeFlag
from libmail.log import LOG
from libmail.tables.table import TableOptions
from tests.certificates import Authority, Issued
from tests.unit.daemons.smtp.bench import CLOSE, USUAL, Bench
from tests.unit.daemons.smtp.test_tls import (
    NOBODY,
    SECURED_BY_DNS,
    STARTTLS_EHLO,
    UNUSABLE,
    SecureServer,
    digest,
    level,
    secure,
)
from tests.unit.dns_records import PlayedDns

KNOWS = {"EHLO": STARTTLS_EHLO.replace("250 PIPELINING", "250-REQUIRETLS\r\n250 PIPELINING")}
PLAIN = {"EHLO": USUAL["EHLO"]}
WANTED = int(EnvelopeFlag.REQUIRETLS)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.a.test", "a.test")


def a_test(
    folder: Path,
    server: SecureServer,
    policy: str,
    *,
    more: tuple[str, ...] = (),
    waited: float = 0,
    tlsa: str = "",
    insecure: tuple[str, ...] = (),
    flags: int = WANTED,
    times: int = 1,
    **values: Any,
) -> Outcome:
    """Deliver to a.test. more: records. waited: seconds since the message came."""

    async def main() -> Outcome:
        async with server:
            records = ["a.test MX 10 mx.a.test", "mx.a.test A 127.0.0.1", *more]
            if tlsa:
                records.append(f"_{server.port}._tcp.mx.a.test {tlsa}")
            settings = {**SECURED_BY_DNS, "smtp_requiretls_policy": policy, **values}
            bench = Bench(folder, dns=PlayedDns(records, insecure), **settings)
            for _ in range(times):
                delivery = bench.delivery(
                    f"a.test:{server.port}", envelope_flags=flags, waited=waited
                )
                (outcome,) = (await bench.run(delivery)).values()
            await server.all_sessions_end()
            return outcome

    return asyncio.run(main())


def asked(server: SecureServer) -> bool:
    """Whether the server was asked for REQUIRETLS."""
    return any(line.endswith(" REQUIRETLS") for line in server.sessions[-1])


@pytest.mark.parametrize(
    ("policy", "wanted", "script", "outcome", "status", "passed"),
    [
        ("opportunistic", "may", KNOWS, Sent, "may/requiretls:nocertmatch", True),
        ("opportunistic", "may", {}, Sent, "may/requiretls:none", False),
        ("opportunistic", "may", PLAIN, Sent, "may:none/requiretls:none", False),
        ("opportunistic", "none", KNOWS, Sent, "none/requiretls:none", False),
        ("opportunistic", "secure", KNOWS, Sent, "secure/requiretls", True),
        ("opportunistic+starttls", "may", KNOWS, Sent, "may/requiretls:nocertmatch", True),
        ("opportunistic+starttls", "may", {}, Sent, "may/requiretls:none", False),
        ("opportunistic+starttls", "may", PLAIN, Bounced, "may/!requiretls:nostarttls", False),
        ("opportunistic+starttls", "none", KNOWS, Bounced, "none/!requiretls:noencryption", None),
        ("opportunistic+starttls", "encrypt", PLAIN, Bounced, "encrypt/!requiretls:nostarttls",
         False),
        ("enforce", "secure", KNOWS, Sent, "secure/requiretls", True),
        ("enforce", "secure", {}, Bounced, "secure/!requiretls:none", False),
        ("enforce", "secure", PLAIN, Bounced, "secure/!requiretls:nostarttls", False),
        ("enforce", "encrypt", KNOWS, Bounced, "encrypt/!requiretls:nocertmatch", None),
        ("enforce", "none", KNOWS, Bounced, "none/!requiretls:noencryption", None),
        ("disable", "may", KNOWS, Sent, "may", False),
        ("disable", "none", PLAIN, Sent, "none", False),
    ],
)  # fmt: skip
def test_policies(
    tmp_path: Path,
    authority: Authority,
    issued: Issued,
    policy: str,
    wanted: str,
    script: dict[str, str],
    outcome: type[Outcome],
    status: str,
    passed: bool | None,
) -> None:
    """passed: whether the server was asked for it; None if there was no session."""
    server = secure(issued, script)
    found = a_test(
        tmp_path, server, policy, **level(wanted, smtp_tls_CAfile=str(authority.certificate))
    )
    assert isinstance(found, outcome), found
    assert found.tls == status
    assert (asked(server) if server.sessions else None) is passed
    if outcome is Bounced:
        assert found.dsn == "5.7.30"
        assert found.reason.startswith("message requires REQUIRETLS, but ")
        assert server.contents == []


def test_without_being_asked_for(tmp_path: Path, issued: Issued) -> None:
    server = secure(issued, KNOWS)
    found = a_test(tmp_path, server, "enforce", flags=0, **level("may"))
    assert (type(found), found.tls, asked(server)) == (Sent, "may", False)


def test_not_enabled(tmp_path: Path, issued: Issued) -> None:
    server = secure(issued, KNOWS)
    found = a_test(tmp_path, server, "enforce", **level("may", requiretls_enable="no"))
    assert (type(found), found.tls, asked(server)) == (Sent, "may", False)


def test_wrong_certificate(tmp_path: Path, issued: Issued) -> None:
    """Nobody vouches for it: it comes back at once, and does not wait for that to change."""
    server = secure(issued, KNOWS)
    found = a_test(tmp_path, server, "enforce", **level("secure"))
    assert (type(found), found.tls) == (Bounced, "secure/!requiretls:nocertmatch")
    assert found.reason.endswith("no verified certificate of mx.a.test[127.0.0.1]")
    server = secure(issued, KNOWS)
    found = a_test(tmp_path, server, "opportunistic+starttls", **level("secure"))
    assert (type(found), found.tls) == (Deferred, "!secure/requiretls?")


@pytest.mark.parametrize("policy", ["opportunistic+starttls", "enforce"])
@pytest.mark.parametrize(
    "script", [{"STARTTLS": "454 4.7.0 not now"}, {"STARTTLS": CLOSE}, {"CONNECT": CLOSE}]
)
def test_what_may_be_over_soon_is_waited_for(
    tmp_path: Path, authority: Authority, issued: Issued, script: dict[str, str], policy: str
) -> None:
    wanted = "may" if policy != "enforce" else "secure"
    server = secure(issued, {**KNOWS, **script})
    ca = {"smtp_tls_CAfile": str(authority.certificate)}
    found = a_test(tmp_path, server, policy, **level(wanted, **ca))
    assert isinstance(found, Deferred), found
    assert found.tls.endswith("/requiretls?")
    assert server.contents == []


def test_no_retry_in_the_clear(tmp_path: Path, issued: Issued) -> None:
    """Although the handshake fails, and the message has waited."""
    server = secure(issued, KNOWS)
    broken = level("may", smtp_tls_protocols="TLSv1.1")
    found = a_test(tmp_path, server, "opportunistic+starttls", waited=4000, **broken)
    assert isinstance(found, Deferred)
    assert (len(server.sessions), server.contents) == (1, [])


def test_another_server_may_do_better(tmp_path: Path, issued: Issued) -> None:
    more = ("a.test MX 20 mx2.a.test", "mx2.a.test A 127.0.0.1")
    server = secure(issued, PLAIN)
    found = a_test(tmp_path, server, "opportunistic+starttls", more=more, **level("may"))
    assert isinstance(found, Bounced)
    assert len(server.sessions) == 2
    assert "mx2.a.test" in found.reason


@pytest.mark.parametrize("wanted", ["may", "none"])
def test_a_server_that_cannot_be_asked_may_do_better(
    tmp_path: Path, issued: Issued, wanted: str
) -> None:
    """Nobody answers at the first; that the second does not meet it is not the last word."""
    more = (
        "a.test MX 5 mx0.a.test", "mx0.a.test A 127.0.0.9",
    )  # fmt: skip
    server = secure(issued, PLAIN)
    found = a_test(tmp_path, server, "opportunistic+starttls", more=more, **level(wanted))
    assert isinstance(found, Bounced if wanted == "none" else Deferred), found
    if wanted == "may":
        assert "connect to mx0.a.test[127.0.0.9]" in found.reason
        assert (len(server.sessions), server.contents) == (1, [])


@pytest.mark.parametrize(
    ("tlsa", "insecure", "outcome", "status"),
    [
        ("right", (), Sent, "dane/requiretls"),
        ("right", ("a.test",), Bounced, "dane/!requiretls:nocertmatch"),
        ("", (), Bounced, "dane/!requiretls:nocertmatch"),
        (UNUSABLE, (), Bounced, "dane/!requiretls:nocertmatch"),
        (f"TLSA 3 1 1 {NOBODY}", (), Bounced, "dane/!requiretls:nocertmatch"),
        ("FAIL", (), Deferred, "dane?/requiretls?"),
    ],
)
def test_dane(
    tmp_path: Path,
    issued: Issued,
    tlsa: str,
    insecure: tuple[str, ...],
    outcome: type[Outcome],
    status: str,
) -> None:
    """As long as DNSSEC vouches for all of it."""
    server = secure(issued, KNOWS)
    record = f"TLSA 3 1 1 {digest(issued)}" if tlsa == "right" else tlsa
    wanted = level("dane")
    found = a_test(tmp_path, server, "enforce", tlsa=record, insecure=insecure, **wanted)
    assert isinstance(found, outcome), found
    if outcome is not Deferred:
        assert found.tls == status
    assert bool(server.contents) == (outcome is Sent)


def test_it_counts_more_than_tls_required_no(tmp_path: Path, issued: Issued) -> None:
    both = WANTED | int(EnvelopeFlag.TLS_OPTIONAL)
    server = secure(issued, PLAIN)
    found = a_test(tmp_path, server, "enforce", flags=both, **level("secure"))
    assert isinstance(found, Bounced)


def test_a_kept_session_is_looked_at_too(tmp_path: Path, issued: Issued) -> None:
    """Those after the first use the session, and none is sent over one that does not do."""
    kept = {"smtp_connection_cache_destinations": "a.test", "smtp_tls_connection_reuse": "yes"}
    server = secure(issued, KNOWS)
    policy = "opportunistic+starttls"
    assert isinstance(a_test(tmp_path, server, policy, times=2, **level("may", **kept)), Sent)
    assert len(server.sessions) == 1
    assert [line for line in server.sessions[0] if line.endswith(" REQUIRETLS")] == [
        "MAIL FROM:<a@example.org> REQUIRETLS"
    ] * 2


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    return lines


def test_a_policy_that_is_none(tmp_path: Path, issued: Issued, logged: list[str]) -> None:
    server = secure(issued, KNOWS)
    found = a_test(tmp_path, server, "inline:{a.test=some}", **level("may"))
    assert (type(found), found.dsn, server.sessions) == (Deferred, "4.3.5", [])
    assert 'warning: smtp_requiretls_policy: unknown policy "some" for a.test' in logged


LIST = (
    "inline:{{example.org=opportunistic}, {.example.org=Opportunistic+StartTLS},"
    " {localhost=disable}}",
    "cidr:{{127.0.0.0/8 opportunistic}}",
    "regexp:{{/^\\.c/ disable}}",
)


@pytest.mark.parametrize(
    ("nexthop", "demand"),
    [
        ("example.org", Demand.OPPORTUNISTIC),
        ("EXAMPLE.org", Demand.OPPORTUNISTIC),
        ("mx.a.example.org", Demand.OPPORTUNISTIC_STARTTLS),
        ("example.com", Demand.ENFORCE),
        ("localhost", Demand.DISABLE),
        ("127.0.0.1", Demand.OPPORTUNISTIC),
        ("192.0.2.1", Demand.ENFORCE),
    ],
)
def test_policy_list(nexthop: str, demand: Demand) -> None:
    for items in (LIST, (*LIST, "enforce")):
        policy = RequireTls("smtp_requiretls_policy", items, TableOptions())
        assert asyncio.run(policy.of(nexthop)) is demand
    policy = RequireTls("smtp_requiretls_policy", (*LIST, "OPPORTUNISTIC"), TableOptions())
    assert asyncio.run(policy.of("example.com")) is Demand.OPPORTUNISTIC
