"""smtp(8) and reports of TLS: which handshakes a collector is told of, and as what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemons.smtp.session import Session
from daemons.smtp.tls_policy import ServerTlsPolicy
from daemons.smtp.tlsrpt import Reporter, open_reporter
from libmail.agents.delivery import Deferred, Outcome, Sent
from libmail.config import open_config
from libmail.ipc.messages import EnvelopeFlag
from libmail.log import LOG
from libmail.lookup.context import LiveLookups
from libmail.net.poller import Poller
from libmail.net.secure_wire import SecureWire
from libmail.tls.levels import Level
from libmail.tls.policy import Policy, Where
from tests.certificates import Authority, Issued
from tests.unit.daemons.smtp.bench import CLOSE, USUAL, Bench
from tests.unit.daemons.smtp.test_tls import (
    NOBODY,
    SECURED_BY_DNS,
    UNUSABLE,
    SecureServer,
    digest,
    level,
    secure,
    site,
)
from tests.unit.dns_records import PlayedDns

RECORD = "v=TLSRPTv1; rua=mailto:tls@a.test"
WANTED = f"_smtp._tls.a.test TXT {RECORD}"
STS = (
    "policy_type=sts policy_domain=sts.a.test { policy_string = version: STSv1 }"
    " mx_host_pattern=mx.a.test"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.a.test")


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    return lines


class Collector:
    """A datagram socket, beside the queue of the bench."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def all(self) -> list[dict[str, Any]]:
        found = []
        while True:
            try:
                found.append(json.loads(self._socket.recv(1 << 18)))
            except BlockingIOError:
                return found

    def fill(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"{}", str(path))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    made = Collector(tmp_path / "rpt")
    yield made
    made.close()


def a_test(
    folder: Path,
    server: SecureServer,
    *,
    records: Iterable[str] = (WANTED,),
    tlsa: str = "",
    insecure: Iterable[str] = (),
    times: int = 1,
    flags: int = 0,
    **values: Any,
) -> Outcome:
    """Deliver to a.test, `times` times; the last outcome."""

    async def main() -> Outcome:
        async with server:
            hosts = ["a.test MX 10 mx.a.test", "mx.a.test A 127.0.0.1"]
            name = f"_{server.port}._tcp.mx.a.test"
            dns = PlayedDns([*hosts, *records, *([f"{name} {tlsa}"] if tlsa else [])], insecure)
            settings = {"smtp_tlsrpt_enable": "yes", "smtp_tlsrpt_socket_name": "rpt", **values}
            bench = Bench(folder, dns=dns, smtp_host_lookup="dns", **settings)
            for _ in range(times):
                delivery = bench.delivery(f"a.test:{server.port}", envelope_flags=flags)
                (outcome,) = (await bench.run(delivery)).values()
            await server.all_sessions_end()
            return outcome

    return asyncio.run(main())


def dane(wanted: str) -> dict[str, Any]:
    both = {**level(wanted), **SECURED_BY_DNS}
    return {name: value for name, value in both.items() if name != "smtp_host_lookup"}


def told(collector: Collector) -> tuple[Any, ...]:
    """Policy type, policy domain, failure type, reason, of the only report."""
    (report,) = collector.all()
    assert (report["d"], report["pr"]) == ("a.test", RECORD)
    (policy,) = report["policies"]
    details = policy.get("failure-details", [{}])[0]
    assert policy["f"] == bool(details)
    if details:
        assert (details["n"], details["r"]) == ("mx.a.test", "127.0.0.1")
    return policy["policy-type"], policy["policy-domain"], details.get("c"), details.get("f")


NOT_OFFERED = {"EHLO": USUAL["EHLO"]}


@pytest.mark.parametrize(
    ("settings", "script", "failure"),
    [
        (level("may"), {}, None),
        (level("encrypt"), {}, None),
        (level("may"), NOT_OFFERED, 201),
        (level("encrypt"), NOT_OFFERED, 201),
        (level("may"), {"STARTTLS": "454 4.7.0 not now"}, 201),
        (level("may", smtp_tls_protocols="TLSv1.1"), {}, 205),
        (level("secure"), {}, 203),
    ],
)
def test_without_a_policy(
    tmp_path: Path,
    issued: Issued,
    collector: Collector,
    settings: dict[str, Any],
    script: dict[str, str],
    failure: int | None,
) -> None:
    a_test(tmp_path, secure(issued, script), **settings)
    assert told(collector)[:3] == (9, "a.test", failure)


def test_both_ends_are_named(tmp_path: Path, issued: Issued, collector: Collector) -> None:
    a_test(tmp_path, secure(issued, NOT_OFFERED), **level("encrypt"))
    (report,) = collector.all()
    (details,) = report["policies"][0]["failure-details"]
    assert (details["s"], details["h"]) == ("127.0.0.1", "sink.test")


@pytest.mark.parametrize(
    ("script", "settings", "records"),
    [
        (NOT_OFFERED, level("none"), [WANTED]),
        ({}, level("may"), []),
        ({}, level("may"), [WANTED, f"{WANTED}s"]),
        ({}, level("may", smtp_tlsrpt_enable="no"), [WANTED]),
        ({"CONNECT": CLOSE}, level("may"), [WANTED]),
        ({"STARTTLS": CLOSE}, level("may"), [WANTED]),
    ],
)
def test_nothing_to_report(
    tmp_path: Path,
    issued: Issued,
    collector: Collector,
    script: dict[str, str],
    settings: dict[str, Any],
    records: list[str],
) -> None:
    a_test(tmp_path, secure(issued, script), records=records, **settings)
    assert collector.all() == []


def test_a_sender_who_does_not_insist_on_tls(
    tmp_path: Path, issued: Issued, collector: Collector
) -> None:
    optional = int(EnvelopeFlag.TLS_OPTIONAL)
    a_test(tmp_path, secure(issued, NOT_OFFERED), flags=optional, **level("encrypt"))
    assert collector.all() == []


def test_log(tmp_path: Path, issued: Issued, collector: Collector, logged: list[str]) -> None:
    a_test(tmp_path, secure(issued), **level("may"))
    head = "domain=a.test, receiving_mx=mx.a.test[127.0.0.1]"
    assert f"TLSRPT: status=success, {head}" in logged
    a_test(tmp_path, secure(issued, NOT_OFFERED), **level("may"))
    assert f"TLSRPT: status=failure, {head}, failure_type=starttls_not_supported" in logged


def test_self_signed(
    tmp_path: Path, authority: Authority, collector: Collector, logged: list[str]
) -> None:
    server = secure(authority.self_signed("mx.a.test", "mx.a.test"))
    assert isinstance(a_test(tmp_path, server, **level("secure")), Deferred)
    assert told(collector)[2:] == (205, "self-signed_certificate")
    assert logged[-1].endswith(
        "failure_type=validation_failure, failure_reason=self-signed_certificate"
    )


def test_wrong_name(
    tmp_path: Path, authority: Authority, issued: Issued, collector: Collector
) -> None:
    trusted = level("secure", smtp_tls_CAfile=str(authority.certificate))
    a_test(tmp_path, secure(authority.issue("other.test")), **trusted)
    assert told(collector)[2:] == (202, None)


@pytest.mark.parametrize("wanted", ["dane", "dane-only"])
def test_dane(tmp_path: Path, issued: Issued, collector: Collector, wanted: str) -> None:
    right = f"TLSA 3 1 1 {digest(issued)}"
    assert isinstance(a_test(tmp_path, secure(issued), tlsa=right, **dane(wanted)), Sent)
    (report,) = collector.all()
    (policy,) = report["policies"]
    assert (policy["policy-type"], policy["policy-domain"], policy["f"]) == (1, "mx.a.test", 0)
    assert policy["policy-string"] == [f"3 1 1 {digest(issued).upper()}"]


@pytest.mark.parametrize(
    ("wanted", "tlsa", "insecure", "expected"),
    [
        ("dane", f"TLSA 3 1 1 {NOBODY}", (), (1, "mx.a.test", 203)),
        ("dane", UNUSABLE, (), (1, "mx.a.test", 304)),
        ("dane", f"TLSA 1 1 1 {NOBODY}", (), (1, "mx.a.test", 304)),
        ("dane-only", f"TLSA 1 1 1 {NOBODY}", (), (1, "mx.a.test", 304)),
        ("dane-only", "", (), (1, "mx.a.test", 306)),
        ("dane-only", "", ("a.test",), (1, "mx.a.test", 306)),
        ("dane", "FAIL", (), (1, "mx.a.test", 305)),
        ("dane", "", (), (9, "a.test", None)),
    ],
)
def test_dane_that_fails(
    tmp_path: Path,
    issued: Issued,
    collector: Collector,
    wanted: str,
    tlsa: str,
    insecure: tuple[str, ...],
    expected: tuple[Any, ...],
) -> None:
    a_test(tmp_path, secure(issued), tlsa=tlsa, insecure=insecure, **dane(wanted))
    assert told(collector)[:3] == expected


@pytest.mark.parametrize(
    ("policy", "failure"),
    [
        (f"may {STS}", None),
        (f"secure match=mx.a.test {STS}", 203),
        (f"secure match=mx.a.test {STS} policy_failure=sts-webpki-invalid", 303),
        (f"may {STS.replace('=mx.', '=other.')}", 205),
    ],
)
def test_sts(
    tmp_path: Path, issued: Issued, collector: Collector, policy: str, failure: int | None
) -> None:
    server = secure(issued)
    a_test(tmp_path, server, **site(server, policy))
    (report,) = collector.all()
    (found,) = report["policies"]
    assert (found["policy-type"], found["policy-domain"]) == (2, "sts.a.test")
    assert found["policy-string"] == ["version: STSv1"]
    assert found["mx-host"][0].endswith(".a.test")
    assert found.get("failure-details", [{}])[0].get("c") == failure


TRUSTED = f"secure match=mx.a.test servername=hostname {STS} policy_mode=testing"


@pytest.mark.parametrize(
    ("policy", "known", "failure"),
    [
        (TRUSTED, True, None),
        (TRUSTED, False, 203),
        (TRUSTED.replace("pattern=mx", "pattern=other"), True, 205),
        (f"secure {STS} policy_mode=testing policy_failure=sts-policy-fetch-error", True, 301),
    ],
)
def test_a_policy_in_testing(
    tmp_path: Path,
    authority: Authority,
    issued: Issued,
    collector: Collector,
    policy: str,
    known: bool,
    failure: int | None,
) -> None:
    """Mail goes, and what would have kept it is told."""
    server = secure(issued)
    trusted = {"smtp_tls_CAfile": str(authority.certificate)} if known else {}
    settings = site(server, policy) | {"smtp_tls_security_level": "may"} | trusted
    assert isinstance(a_test(tmp_path, server, **settings), Sent)
    (report,) = collector.all()
    (found,) = report["policies"]
    assert (found["policy-type"], found["f"]) == (2, int(failure is not None))
    assert found.get("failure-details", [{}])[0].get("c") == failure


def test_a_mistake_of_ours_is_not_reported(
    tmp_path: Path, issued: Issued, collector: Collector
) -> None:
    server = secure(issued)
    assert isinstance(a_test(tmp_path, server, **site(server, "secure match=")), Deferred)
    assert collector.all() == []


def test_only_handshakes_count(tmp_path: Path, issued: Issued, collector: Collector) -> None:
    """A session that is used again has none."""
    kept = {"smtp_connection_cache_destinations": "a.test", "smtp_tls_connection_reuse": "yes"}
    server = secure(issued)
    a_test(tmp_path, server, times=2, **level("may", **kept))
    assert len(server.sessions) == 1
    assert len(collector.all()) == 1


@pytest.mark.parametrize("reason", ["full", "missing"])
def test_a_collector_that_does_not_listen(
    tmp_path: Path, issued: Issued, collector: Collector, logged: list[str], reason: str
) -> None:
    if reason == "missing":
        (tmp_path / "rpt").unlink()
    else:
        collector.fill(tmp_path / "rpt")
    assert isinstance(a_test(tmp_path, secure(issued), **level("may")), Sent)
    assert any("TLSRPT: cannot report to the collector rpt: " in line for line in logged)


@pytest.mark.parametrize(
    ("name", "problem"), [("", "empty"), ("run/" + "x" * 110, "too long"), ("run/rpt", "")]
)
def test_settings(tmp_path: Path, logged: list[str], name: str, problem: str) -> None:
    values = f"lmtp_tlsrpt_enable = yes\nlmtp_tlsrpt_socket_name = {name}\n"
    (tmp_path / "main.cf").write_text(f"{values}queue_directory = {tmp_path}\n")
    reporter = open_reporter(open_config(str(tmp_path)), "lmtp", LiveLookups({}))
    assert (reporter is None) == bool(problem)
    assert len(logged) == bool(problem)
    assert all(problem in line for line in logged)


def test_an_absolute_path_into_the_queue(
    tmp_path: Path, issued: Issued, collector: Collector
) -> None:
    """It is right in a jail, too."""
    place = {"queue_directory": str(tmp_path), "smtp_tlsrpt_socket_name": f"{tmp_path}/rpt"}
    a_test(tmp_path, secure(issued), **level("may", **place))
    assert len(collector.all()) == 1


@pytest.mark.parametrize("skip", [True, False])
def test_a_session_that_was_resumed(tmp_path: Path, collector: Collector, *, skip: bool) -> None:
    async def main() -> None:
        lookups = LiveLookups({}, resolver=PlayedDns([WANTED]))  # type: ignore[arg-type]
        reporter = Reporter(str(tmp_path / "rpt"), lookups, skip_resumed=skip)
        reporter.begin(asyncio.create_task)
        wire = SecureWire(Poller(asyncio.get_running_loop()), socket.AF_INET, {})
        session = Session(wire, "mx.a.test", "127.0.0.1", 25)
        where = Where("a.test", "mx.a.test")
        policy = ServerTlsPolicy(Policy(level=Level.MAY), where, Level.MAY)
        reporter.handshake(session, policy, None, resumed=True)
        await reporter.drain()
        wire.close()

    asyncio.run(main())
    assert len(collector.all()) == (0 if skip else 1)
