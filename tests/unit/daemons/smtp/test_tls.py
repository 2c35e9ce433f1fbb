"""smtp(8) and TLS: who gets mail in secret, who in the clear, who none, and what the log says."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemons.smtp.tls_policy import open_policies
from libmail.agents.delivery import Bounced, Deferred, Outcome, Sent
from libmail.config import open_config
from libmail.ipc.messages import DeliverFlag, EnvelopeFlag
from libmail.log import LOG
from tests.certificates import Authority, Issued
from tests.unit.daemons.smtp.bench import BODY, CLOSE, HEADER, USUAL, Bench, Server
from tests.unit.daemons.smtp.test_walk import NAME, deliver, one
from tests.unit.dns_records import PlayedDns

STARTTLS_EHLO = "250-sink.test\r\n250-STARTTLS\r\n250 PIPELINING"
READY = "220 2.0.0 go on"
CLIENT_PROBLEM = "client TLS configuration problem"


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    return lines


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("localhost", "localhost", "mx.sink.test")


def context(issued: Issued) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(issued.certificate, issued.key)
    return made


@dataclass
class SecureServer(Server):
    """context: of STARTTLS. injected: sent in the clear behind the answer to it."""

    context: ssl.SSLContext | None = None
    injected: bytes = b""
    versions: list[str | None] = field(default_factory=list)
    resumed: list[bool] = field(default_factory=list)

    async def _secure(self, writer: asyncio.StreamWriter) -> None:
        assert self.context is not None
        await writer.start_tls(self.context)
        self.versions.append(writer.get_extra_info("ssl_object").version())
        self.resumed.append(writer.get_extra_info("ssl_object").session_reused)

    async def _say(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str
    ) -> bool:
        if not await super()._say(reader, writer, line):
            return False
        if line == "STARTTLS" and self.reply(line).startswith("220"):
            writer.write(self.injected)
            try:
                await self._secure(writer)
            except ssl.SSLError:
                return False
        return True


def secure(issued: Issued, script: Mapping[str, str] | None = None, **values: Any) -> SecureServer:
    offers = {"EHLO": STARTTLS_EHLO, "LHLO": STARTTLS_EHLO, "STARTTLS": READY}
    return SecureServer({**offers, **(script or {})}, context=context(issued), **values)


def verbs(server: Server, number: int = 0) -> list[str]:
    return [line.split()[0] for line in server.sessions[number]]


def level(name: str, **others: str) -> dict[str, Any]:
    return {"smtp_tls_security_level": name, "smtp_tls_loglevel": "1", **others}


def site(server: Server, policy: str) -> dict[str, Any]:
    return {"smtp_tls_policy_maps": f"static:{{{policy}}}", "smtp_tls_loglevel": "1"}


SECURED = ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]


@pytest.mark.parametrize("wanted", ["may", "encrypt"])
def test_starttls(tmp_path: Path, issued: Issued, wanted: str, logged: list[str]) -> None:
    server = secure(issued)
    outcome = one(Bench(tmp_path, **level(wanted)), server)
    assert isinstance(outcome, Sent)
    assert outcome.tls == wanted
    assert verbs(server) == SECURED
    assert server.versions == ["TLSv1.3"]
    assert server.contents == [HEADER + BODY]
    expected = f"Untrusted TLS connection established to {NAME}:{server.port}: TLSv1.3 with cipher"
    assert any(line.startswith(expected) for line in logged)


def test_lmtp(tmp_path: Path, issued: Issued) -> None:
    server = secure(issued, lmtp=True)
    bench = Bench(tmp_path, lmtp=True, lmtp_tls_security_level="encrypt")
    assert isinstance(one(bench, server), Sent)
    assert verbs(server)[:3] == ["LHLO", "STARTTLS", "LHLO"]


def test_a_large_body_travels_whole(tmp_path: Path, issued: Issued) -> None:
    body = b"\r\n" + b"0123456789" * 7 + b"\r\n"
    body += b"x" * 60 + b"\r\n" * 2
    body = b"\r\n" + body * 20000
    server = secure(issued)
    assert isinstance(one(Bench(tmp_path, **level("may")), server, body=body), Sent)
    assert server.contents == [HEADER + body]


@pytest.mark.parametrize(
    ("wanted", "script", "outcome", "status"),
    [
        ("may", {"EHLO": USUAL["EHLO"]}, Sent, "may:none"),
        ("may", {"STARTTLS": "454 4.7.0 not now"}, Sent, "may:none"),
        ("none", {}, Sent, "none"),
        ("encrypt", {"EHLO": USUAL["EHLO"]}, Deferred, "!encrypt"),
        ("encrypt", {"STARTTLS": "454 4.7.0 not now"}, Deferred, "!encrypt"),
        ("encrypt", {"STARTTLS": "554 5.7.0 never"}, Bounced, "!encrypt"),
        ("encrypt", {"STARTTLS": CLOSE}, Deferred, "encrypt?"),
        ("may", {"CONNECT": "421 4.3.2 closed"}, Deferred, "may?"),
    ],
)
def test_server_without_tls(
    tmp_path: Path,
    issued: Issued,
    wanted: str,
    script: dict[str, str],
    outcome: type[Outcome],
    status: str,
) -> None:
    server = secure(issued, script)
    found = one(Bench(tmp_path, **level(wanted)), server)
    assert isinstance(found, outcome)
    assert found.tls == status
    assert bool(server.contents) == (outcome is Sent)


def test_reasons(tmp_path: Path, issued: Issued) -> None:
    found = one(Bench(tmp_path, **level("encrypt")), secure(issued, {"EHLO": USUAL["EHLO"]}))
    assert (found.dsn, found.reason) == (
        "4.7.4",
        f"TLS is required, but was not offered by host {NAME}",
    )
    server = secure(issued, {"STARTTLS": "454 4.7.0 not now"})
    found = one(Bench(tmp_path, **level("encrypt")), server)
    assert (found.dsn, found.reason) == (
        "4.7.0",
        f"TLS is required, but host {NAME} refused to start TLS: 454 4.7.0 not now",
    )


def test_what_is_injected_before_the_handshake_is_forgotten(tmp_path: Path, issued: Issued) -> None:
    server = secure(issued, injected=b"250-evil.test\r\n250 SMTPUTF8\r\n250 2.0.0 Ok\r\n")
    found = one(Bench(tmp_path, **level("encrypt")), server)
    assert isinstance(found, Sent | Deferred)
    if isinstance(found, Sent):
        assert verbs(server) == SECURED


@pytest.mark.parametrize(("waited", "minimum"), [(0.0, "300s"), (400.0, "300s"), (400.0, "500s")])
@pytest.mark.parametrize("wanted", ["may", "encrypt"])
def test_failed_handshake(
    tmp_path: Path, issued: Issued, waited: float, minimum: str, wanted: str
) -> None:
    """A message that has waited already goes in the clear, where it may."""
    old = context(issued)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    server = secure(issued)
    server.context = old
    settings = level(
        wanted,
        smtp_tls_protocols=">=TLSv1.3",
        smtp_tls_mandatory_protocols=">=TLSv1.3",
        minimal_backoff_time=minimum,
    )
    found = one(Bench(tmp_path, **settings), server, waited=waited)
    if wanted == "may" and waited > float(minimum[:-1]):
        assert isinstance(found, Sent)
        assert found.tls == "may:none"
        assert verbs(server, 1) == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]
    else:
        assert isinstance(found, Deferred)
        assert (found.dsn, found.reason) == ("4.7.5", "Cannot start TLS: handshake failure")
        assert found.tls == f"{wanted}?"
        assert len(server.sessions) == 1


@pytest.mark.parametrize("waited", [0.0, 400.0])
def test_session_that_is_lost_in_tls(tmp_path: Path, issued: Issued, waited: float) -> None:
    class Flaky(SecureServer):
        def reply(self, line: str) -> str:
            return (
                CLOSE
                if line.startswith("MAIL") and len(self.sessions) == 1
                else super().reply(line)
            )

    server = Flaky({"EHLO": STARTTLS_EHLO, "STARTTLS": READY}, context=context(issued))
    found = one(Bench(tmp_path, **level("may")), server, waited=waited)
    assert isinstance(found, Sent if waited else Deferred)
    assert len(server.sessions) == (2 if waited else 1)
    assert "STARTTLS" not in verbs(server, -1) or not waited


@pytest.mark.parametrize(
    ("policy", "trusted", "sent"),
    [
        ("verify match=localhost", True, True),
        ("verify match=.sink.test", True, True),
        ("secure match=other.test", True, False),
        ("secure match=localhost", False, False),
        ("verify", True, False),  # an address is no name
        ("fingerprint match=00:11", True, False),
        ("encrypt protocols=TLSv1.2", True, True),
        ("encrypt ciphers=high exclude=AES128", True, True),
    ],
)
def test_the_right_server(
    tmp_path: Path, authority: Authority, issued: Issued, policy: str, trusted: bool, sent: bool
) -> None:
    server = secure(issued)
    settings = site(server, policy)
    if trusted:
        settings["smtp_tls_CAfile"] = str(authority.certificate)
    found = one(Bench(tmp_path, **settings), server)
    assert isinstance(found, Sent if sent else Deferred)
    if not sent:
        assert (found.dsn, found.reason) == ("4.7.5", "Server certificate not verified")
        assert found.tls.startswith("!")
        assert verbs(server) == ["EHLO", "STARTTLS", "QUIT"]


def test_client_certificate(tmp_path: Path, authority: Authority, issued: Issued) -> None:
    own = authority.issue("client.test")
    server = secure(issued)
    assert server.context is not None
    server.context.verify_mode = ssl.CERT_REQUIRED
    server.context.load_verify_locations(authority.certificate)
    chain = {"smtp_tls_chain_files": str(own.chain)}
    assert isinstance(one(Bench(tmp_path, **level("encrypt", **chain)), server), Sent)


@pytest.mark.parametrize("wanted", ["none", "may"])
def test_wrappermode_that_may_be_in_the_clear(
    tmp_path: Path, issued: Issued, wanted: str, logged: list[str]
) -> None:
    server = Server(wrapped=context(issued))
    found = one(Bench(tmp_path, **level(wanted, smtp_tls_wrappermode="yes")), server)
    assert isinstance(found, Deferred)
    assert (found.dsn, found.relay) == ("4.3.0", "none")
    assert found.reason == "server unavailable or unable to receive mail"
    assert not server.sessions
    requires = 'smtp_tls_wrappermode requires "smtp_tls_security_level = encrypt" (or stronger)'
    assert f"warning: {requires}" in logged


def test_wrappermode(tmp_path: Path, issued: Issued) -> None:
    server = Server(wrapped=context(issued))
    found = one(Bench(tmp_path, **level("encrypt", smtp_tls_wrappermode="yes")), server)
    assert isinstance(found, Sent)
    assert found.tls == "encrypt"
    assert verbs(server) == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]


@pytest.mark.parametrize(
    "settings",
    [
        level("misspelt"),
        {"smtp_tls_policy_maps": "fail:1"},
        {"smtp_tls_policy_maps": "static:{secure, match=x nonsense}"},
        {"smtp_tls_per_site": "static:SOMETIMES"},
        level("dane-only"),  # without smtp_dns_support_level = dnssec
        level("encrypt", smtp_tls_mandatory_ciphers="wonderful"),
    ],
)
def test_mistakes_defer_mail(tmp_path: Path, issued: Issued, settings: dict[str, Any]) -> None:
    server = secure(issued)
    found = one(Bench(tmp_path, **settings), server)
    assert isinstance(found, Deferred)
    assert (found.dsn, found.reason, found.relay) == ("4.7.5", CLIENT_PROBLEM, "none")
    assert not server.sessions


@pytest.mark.parametrize(("wanted", "sent"), [("may", True), ("encrypt", False)])
def test_engine_that_cannot_be_used(
    tmp_path: Path, issued: Issued, wanted: str, sent: bool
) -> None:
    server = secure(issued)
    bench = Bench(tmp_path, **level(wanted, smtp_tls_CAfile="/no/such/file"))
    assert bench.client.engine is None
    found = one(bench, server)
    assert isinstance(found, Sent if sent else Deferred)
    if not sent:
        assert found.reason == "TLS is required, but our TLS engine is unavailable"
        assert found.dsn == "4.7.5"


@pytest.mark.parametrize(
    ("settings", "secured"),
    [
        ({"smtp_use_tls": "yes"}, True),
        ({"smtp_enforce_tls": "yes", "smtp_tls_enforce_peername": "no"}, True),
        ({"smtp_tls_per_site": "inline:{{localhost=MAY}}"}, False),
        ({"smtp_tls_per_site": "static:MUST_NOPEERMATCH"}, True),
        ({"smtp_tls_security_level": "encrypt", "smtp_tls_policy_maps": "static:none"}, False),
        ({"smtp_tls_security_level": "none", "smtp_enforce_tls": "yes"}, False),
    ],
)
def test_which_level(
    tmp_path: Path, issued: Issued, settings: dict[str, Any], secured: bool
) -> None:
    server = secure(issued)
    assert isinstance(one(Bench(tmp_path, **settings), server), Sent)
    assert bool(server.versions) == secured


def test_offer_is_noted(tmp_path: Path, issued: Issued, logged: list[str]) -> None:
    one(Bench(tmp_path, **level("none", smtp_tls_note_starttls_offer="yes")), secure(issued))
    assert "Host offered STARTTLS: [127.0.0.1]" in logged


@pytest.mark.parametrize(("reuse", "sessions"), [("no", 2), ("yes", 1)])
def test_kept_sessions(tmp_path: Path, issued: Issued, reuse: str, sessions: int) -> None:
    async def main() -> Server:
        bench = Bench(tmp_path, **level("encrypt", smtp_tls_connection_reuse=reuse))
        async with secure(issued) as server:
            for _ in range(2):
                delivery = bench.delivery(f"[127.0.0.1]:{server.port}", flags=DeliverFlag.KEEP)
                found = await bench.run(delivery)
                assert all(isinstance(outcome, Sent) for outcome in found.values())
                assert {outcome.tls for outcome in found.values()} == {"encrypt"}
            bench.client.cache.close()
            await server.all_sessions_end()
            return server

    assert len(asyncio.run(main()).sessions) == sessions


def test_no_session_serves_who_wants_another_level(tmp_path: Path, issued: Issued) -> None:
    """Two tables that differ in the level, one server, sessions kept for both."""

    async def main() -> SecureServer:
        server = secure(issued)
        async with server:
            where = f"[127.0.0.1]:{server.port}"
            table = "inline:{{" + f"{where}=encrypt" + "}}"
            bench = Bench(tmp_path, smtp_tls_policy_maps=table, smtp_tls_connection_reuse="yes")
            for nexthop in (where, f"127.0.0.1:{server.port}", where):
                delivery = bench.delivery(nexthop, flags=DeliverFlag.KEEP)
                await bench.run(delivery)
            bench.client.cache.close()
            await server.all_sessions_end()
            return server

    server = asyncio.run(main())
    assert len(server.sessions) == 2
    assert len(server.versions) == 1


def test_whether_tls_is_used_at_all(tmp_path: Path) -> None:
    def ever(text: str) -> bool:
        (tmp_path / "main.cf").write_text(text)
        config = open_config(str(tmp_path))
        return open_policies(config, "smtp").ever

    assert not ever("")
    assert not ever("smtp_tls_security_level = none\n")
    assert ever("smtp_use_tls = yes\n")
    assert ever("smtp_tls_policy_maps = static:may\n")
    assert ever("smtp_tls_per_site = static:MAY\n")


def test_two_recipients(tmp_path: Path, issued: Issued) -> None:
    server = secure(issued, {"RCPT TO:<c@example.org>": "550 5.1.1 no"})
    _, found = deliver(
        Bench(tmp_path, **level("may")), server, recipients=("b@example.org", "c@example.org")
    )
    assert isinstance(found["b@example.org"], Sent)
    assert isinstance(found["c@example.org"], Bounced)


@pytest.mark.parametrize("enforced", [True, False])
def test_mx_host_that_an_mta_sts_policy_does_not_name(
    tmp_path: Path, issued: Issued, *, enforced: bool
) -> None:
    """No session with it (RFC 8461 §5)."""
    server = secure(issued)
    policy = "may policy_type=sts policy_domain=sts.test mx_host_pattern=mx.sts.test"
    patterns = "yes" if enforced else "no"
    bench = Bench(tmp_path, **site(server, policy), smtp_tls_enforce_sts_mx_patterns=patterns)
    found = one(bench, server)
    if not enforced:
        assert isinstance(found, Sent)
        return
    assert isinstance(found, Deferred)
    assert (found.dsn, server.sessions) == ("4.7.5", [])
    assert found.reason.endswith("is not among the MX hosts of the MTA-STS policy of sts.test")


class Eager(SecureServer):
    """Within TLS it answers commands of somebody who was there before."""

    def reply(self, line: str) -> str:
        early = "\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok" if self.versions and line[:4] == "EHLO" else ""
        return super().reply(line) + early


@pytest.mark.parametrize("blocked", [True, False])
def test_replies_to_what_we_have_not_said(tmp_path: Path, issued: Issued, *, blocked: bool) -> None:
    offers = {"EHLO": STARTTLS_EHLO, "STARTTLS": READY}
    server = Eager(offers, context=context(issued))
    setting = {"smtp_tls_block_early_mail_reply": "yes" if blocked else "no"}
    outcome = one(Bench(tmp_path, **level("may", **setting)), server)
    told = outcome.reason == f"host {NAME} sent a reply before its command"
    assert told is blocked
    if blocked:
        assert isinstance(outcome, Deferred)
        assert verbs(server) == ["EHLO", "STARTTLS", "EHLO", "QUIT"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127"])
def test_loglevel_of_one_server(
    tmp_path: Path, issued: Issued, logged: list[str], address: str
) -> None:
    maps = {"smtp_tls_loglevel": "0", "smtp_tls_loglevel_maps": f"inline:{{{address}=1}}"}
    one(Bench(tmp_path, **level("may", **maps)), secure(issued))
    assert any(line.startswith("Untrusted TLS connection established") for line in logged)


# -- TLS-Required: no


def relaxed(folder: Path, server: Server, **values: Any) -> Outcome:
    return one(Bench(folder, **values), server, envelope_flags=int(EnvelopeFlag.TLS_OPTIONAL))


@pytest.mark.parametrize("wanted", ["encrypt", "secure", "dane-only", "fingerprint"])
def test_sender_does_not_insist_on_tls(tmp_path: Path, issued: Issued, wanted: str) -> None:
    dnssec = {"smtp_dns_support_level": "dnssec", "smtp_host_lookup": "dns"}
    for server in (secure(issued), SecureServer({"EHLO": USUAL["EHLO"]})):
        outcome = relaxed(tmp_path, server, **level(wanted, **dnssec))
        assert isinstance(outcome, Sent), outcome
        assert outcome.tls.startswith("may")


def test_sender_does_not_insist_on_tls_where_there_is_a_policy(
    tmp_path: Path, issued: Issued
) -> None:
    server = secure(issued)
    assert isinstance(relaxed(tmp_path, server, **site(server, "secure match=x.test")), Sent)
    plain = secure(issued)
    assert isinstance(relaxed(tmp_path, plain, **level("none")), Sent)
    assert plain.versions == []


# -- DANE

SECURED_BY_DNS = {"smtp_dns_support_level": "dnssec", "smtp_host_lookup": "dns"}


def by_dns(
    folder: Path, server: SecureServer, wanted: str, tlsa: str, insecure: Iterable[str] = ()
) -> Outcome:
    """Deliver to dane.test, whose MX host has the TLSA record."""

    async def main() -> Outcome:
        async with server:
            name = f"_{server.port}._tcp.mx.dane.test"
            records = ["dane.test MX 10 mx.dane.test", "mx.dane.test A 127.0.0.1"]
            dns = PlayedDns([*records, f"{name} {tlsa}"] if tlsa else records, insecure)
            bench = Bench(folder, dns=dns, **level(wanted, **SECURED_BY_DNS))
            delivery = bench.delivery(f"dane.test:{server.port}")
            (outcome,) = (await bench.run(delivery)).values()
            await server.all_sessions_end()
            return outcome

    return asyncio.run(main())


def digest(issued: Issued) -> str:
    return hashlib.sha256(issued.public_key()).hexdigest()


NOBODY = "00" * 32
UNUSABLE = f"TLSA 3 2 1 {NOBODY}"


@pytest.mark.parametrize("wanted", ["dane", "dane-only"])
def test_dane(tmp_path: Path, issued: Issued, wanted: str, logged: list[str]) -> None:
    server = secure(issued)
    outcome = by_dns(tmp_path, server, wanted, f"TLSA 3 1 1 {digest(issued)}")
    assert isinstance(outcome, Sent), logged
    assert outcome.tls == wanted
    established = f"Verified TLS connection established to mx.dane.test[127.0.0.1]:{server.port}: "
    assert any(line.startswith(established) for line in logged)


@pytest.mark.parametrize("wanted", ["dane", "dane-only"])
def test_dane_with_a_record_of_another(
    tmp_path: Path, issued: Issued, wanted: str, logged: list[str]
) -> None:
    server = secure(issued)
    outcome = by_dns(tmp_path, server, wanted, f"TLSA 3 1 1 {NOBODY}")
    assert isinstance(outcome, Deferred)
    assert (outcome.dsn, outcome.reason) == ("4.7.5", "Server certificate not verified")
    assert server.contents == []
    peer = f"mx.dane.test[127.0.0.1]:{server.port}"
    assert logged[0] == (
        f"server certificate verification failed for {peer}: num=65:no matching DANE TLSA records"
    )


def test_dane_without_records(tmp_path: Path, issued: Issued, logged: list[str]) -> None:
    outcome = by_dns(tmp_path, secure(issued), "dane", "")
    assert isinstance(outcome, Sent)
    assert outcome.tls == "dane:may"
    outcome = by_dns(tmp_path, secure(issued), "dane-only", "")
    assert isinstance(outcome, Deferred)
    assert (outcome.dsn, outcome.reason) == ("4.7.5", "no TLSA records found")
    told = "warning: TLS policy lookup for dane.test:"
    assert logged[-2].startswith(told)
    assert logged[-2].endswith("/mx.dane.test: no TLSA records found")


def test_dane_where_no_record_can_be_used(
    tmp_path: Path, issued: Issued, logged: list[str]
) -> None:
    server = secure(issued)
    assert isinstance(by_dns(tmp_path, server, "dane", UNUSABLE), Sent)
    peer = f"warning: mx.dane.test[127.0.0.1]:{server.port}"
    assert logged[:2] == [
        f"{peer}: unusable TLSA RR: 3 2 1 {NOBODY}",
        f"{peer}: all TLSA records unusable, fallback to unauthenticated TLS",
    ]
    assert isinstance(by_dns(tmp_path, secure(issued), "dane-only", UNUSABLE), Deferred)
    plain = SecureServer({"EHLO": USUAL["EHLO"]})
    outcome = by_dns(tmp_path, plain, "dane", UNUSABLE)
    assert isinstance(outcome, Deferred)
    assert outcome.dsn == "4.7.4"


def test_dane_by_an_mx_record_that_may_be_forged(
    tmp_path: Path, issued: Issued, logged: list[str]
) -> None:
    """The certificate has to fit, but the name of the host may be anybody's."""
    right = f"TLSA 3 1 1 {digest(issued)}"
    assert isinstance(by_dns(tmp_path, secure(issued), "dane", right, ["dane.test"]), Sent)
    assert any(line.startswith("Trusted TLS connection established") for line in logged)
    wrong = f"TLSA 3 1 1 {NOBODY}"
    assert isinstance(by_dns(tmp_path, secure(issued), "dane", wrong, ["dane.test"]), Deferred)


def test_dane_is_not_for_sockets_of_this_host(tmp_path: Path, logged: list[str]) -> None:
    bench = Bench(tmp_path, lmtp=True, lmtp_tls_security_level="dane",
                  lmtp_dns_support_level="dnssec", lmtp_host_lookup="dns")  # fmt: skip
    delivery = bench.delivery("unix:nowhere")
    (outcome,) = asyncio.run(bench.run(delivery)).values()
    assert isinstance(outcome, Deferred)
    assert outcome.reason == CLIENT_PROBLEM
    assert logged[0] == (
        'warning: mail.test: the "dane" security level is invalid for delivery'
        " via a unix-domain socket"
    )
