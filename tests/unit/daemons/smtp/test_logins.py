"""smtp(8) logs in: which login, what is said, what comes of it, and what nobody sees of it."""

from __future__ import annotations

import asyncio
import base64
import getpass
import hashlib
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemons.smtp.refusals import Refusal, RefusalCache
from libmail.agents.delivery import Bounced, Deferred, Outcome, Sent
from libmail.clients.oauth2 import NoToken, TokenClient
from libmail.ipc.messages import DeliverFlag
from libmail.log import LOG, Fatal
from libmail.sasl.scram import ScramClient
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.surrogate import UnavailableTable
from libmail.tables.table import TableOptions
from tests.certificates import Authority
from tests.unit.daemons.smtp.bench import CLOSE, HANG, USUAL, Bench, Server
from tests.unit.daemons.smtp.test_recording import transcript
from tests.unit.daemons.smtp.test_walk import NAME, deliver, one

PASSWORD = "a-secret"
PLAIN = base64.b64encode(f"\0relay\0{PASSWORD}".encode()).decode()
SECRETS = (PASSWORD, PLAIN, base64.b64encode(PASSWORD.encode()).decode())


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    return lines


def values(**more: str) -> dict[str, Any]:
    """Parameters of a client that logs in everywhere."""
    return {
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_password_maps": f"static:relay:{PASSWORD}",
        "smtp_sasl_security_options": "noanonymous",
        **more,
    }


@dataclass
class AuthServer(Server):
    """script: also has replies to responses, by the whole line."""

    def reply(self, line: str) -> str:
        verb = (line.split() or [""])[0].upper()
        usual = "235 2.7.0 welcome" if verb == "AUTH" else USUAL.get(verb, "502 5.5.2 what")
        return self.script.get(line, self.script.get(verb, usual))


@dataclass
class Persistent(AuthServer):
    """stubborn: the reply to AUTH, and to whatever comes then."""

    stubborn: str = ""

    def reply(self, line: str) -> str:
        return super().reply(line) if line[:4] in ("CONN", "EHLO") else self.stubborn


def offering(words: str, script: Mapping[str, str] | None = None, **more: Any) -> AuthServer:
    hello = f"250-sink.test\r\n250-PIPELINING\r\n250 {words}"
    return AuthServer({"EHLO": hello, "LHLO": hello, **(script or {})}, **more)


def refused(outcome: Outcome) -> tuple[type, str, str]:
    assert isinstance(outcome, Deferred | Bounced)
    return type(outcome), outcome.dsn, outcome.reason


# what is said


def test_plain(tmp_path: Path) -> None:
    server = offering("AUTH PLAIN LOGIN")
    assert isinstance(one(Bench(tmp_path, **values()), server), Sent)
    assert server.sessions[0][:3] == ["EHLO mail.test", f"AUTH PLAIN {PLAIN}",
                                      "MAIL FROM:<a@example.org>"]  # fmt: skip


def test_login(tmp_path: Path) -> None:
    user, password = (base64.b64encode(one.encode()).decode() for one in ("relay", PASSWORD))
    server = offering(
        "AUTH LOGIN",
        {"AUTH": "334 VXNlcm5hbWU6", user: "334 UGFzc3dvcmQ6", password: "235 fine"},
    )
    assert isinstance(one(Bench(tmp_path, **values()), server), Sent)
    assert server.sessions[0][1:4] == ["AUTH LOGIN", user, password]


def test_lmtp(tmp_path: Path) -> None:
    server = offering("AUTH PLAIN", lmtp=True)
    parameters = {name.replace("smtp", "lmtp", 1): value for name, value in values().items()}
    assert isinstance(one(Bench(tmp_path, lmtp=True, **parameters), server), Sent)
    assert server.sessions[0][1] == f"AUTH PLAIN {PLAIN}"


def test_token(tmp_path: Path) -> None:
    server = offering("AUTH PLAIN XOAUTH2")
    bench = Bench(tmp_path, **values(smtp_sasl_mechanism_filter="xoauth2, plain"))
    assert isinstance(one(bench, server), Sent)
    said = base64.b64encode(f"user=relay\1auth=Bearer {PASSWORD}\1\1".encode()).decode()
    assert server.sessions[0][1] == f"AUTH XOAUTH2 {said}"


def test_a_password_is_no_token(tmp_path: Path, logged: list[str]) -> None:
    outcome = one(Bench(tmp_path, **values()), offering("AUTH XOAUTH2"))
    assert refused(outcome)[1:] == (
        "4.7.0",
        f"SASL authentication failed; cannot authenticate to server {NAME}: no mechanism available",
    )
    assert "warning: SASL authentication failure: No worthy mechs found" in logged


def test_costly_answers_hold_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server decides how much work SCRAM is, and a cache of refusals is slow on purpose."""
    threads, stretch = list[bool](), hashlib.pbkdf2_hmac

    def stretching(*words: Any) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return stretch(*words)

    monkeypatch.setattr("hashlib.pbkdf2_hmac", stretching)
    monkeypatch.setattr(ScramClient.final, "__defaults__", (stretching,))
    server = ScramServerPeer({"EHLO": "250-sink.test\r\n250 AUTH SCRAM-SHA-256"})
    bench = Bench(tmp_path, **values(smtp_sasl_auth_cache_name="internal:refusals"))
    refused(one(bench, server))
    assert threads == [False, False]


@dataclass
class ScramServerPeer(AuthServer):
    """Asks for the proof of a password, and refuses it."""

    def reply(self, line: str) -> str:
        if line.startswith("AUTH "):
            nonce = base64.b64decode(line.split()[2]).decode().rpartition("r=")[2]
            first = f"r={nonce}more,s=c2FsdA==,i=4096".encode()
            return f"334 {base64.b64encode(first).decode()}"
        return super().reply(line) if line.split()[0] in {*self.script, *USUAL} else "535 5.7.8 no"


@pytest.mark.parametrize(("words", "verb"), [("", "PLAIN"), ("external, plain", "PLAIN")])
def test_no_certificate_is_shown_without_tls(tmp_path: Path, words: str, verb: str) -> None:
    server = offering("AUTH EXTERNAL PLAIN")
    assert isinstance(
        one(Bench(tmp_path, **values(smtp_sasl_mechanism_filter=words)), server), Sent
    )
    assert server.sessions[0][1].startswith(f"AUTH {verb} ")


class Tokens:
    """oauth2(8): given out in order; asked: accounts, with tokens that were refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *given: str | NoToken) -> None:
        self.asked: list[tuple[str, str]] = []
        tokens = list(given)

        async def token(client: TokenClient, account: str, rejected: str = "") -> str:
            self.asked.append((account, rejected))
            found = tokens.pop(0)
            if isinstance(found, NoToken):
                raise found
            return found

        monkeypatch.setattr(TokenClient, "token", token)


def bearer(token: str) -> str:
    return base64.b64encode(f"user=relay\1auth=Bearer {token}\1\1".encode()).decode()


def with_account(**more: str) -> dict[str, Any]:
    return values(smtp_sasl_password_maps="static:relay:{oauth2}anna", **more)


def test_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An access token, and by no mechanism that takes a password."""
    tokens = Tokens(monkeypatch, "access-1")
    server = offering("AUTH PLAIN LOGIN SCRAM-SHA-256 XOAUTH2")
    assert isinstance(one(Bench(tmp_path, **with_account()), server), Sent)
    assert server.sessions[0][1] == f"AUTH XOAUTH2 {bearer('access-1')}"
    assert tokens.asked == [("anna", "")]


def test_account_of_a_server_for_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(monkeypatch)
    server = offering("AUTH PLAIN LOGIN")
    outcome = one(Bench(tmp_path, **with_account(smtp_sasl_auth_soft_bounce="no")), server)
    assert refused(outcome)[:2] == (Deferred, "4.7.0")
    assert tokens.asked == []
    assert not any(line.startswith("AUTH") for line in server.sessions[0])


def test_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail waits, and says what for."""
    why = "the owner has to agree again, by postfix oauth2 anna (invalid_grant)"
    Tokens(monkeypatch, NoToken(why))
    outcome = one(
        Bench(tmp_path, **with_account(smtp_sasl_auth_soft_bounce="no")), offering("AUTH XOAUTH2")
    )
    assert refused(outcome) == (
        Deferred,
        "4.7.0",
        f"SASL authentication failed; cannot authenticate to server {NAME}:"
        f" no access token of account anna: {why}",
    )


@pytest.mark.parametrize("good", [True, False])
def test_refused_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool) -> None:
    """Another one is tried at once; mail waits, where a refused password would return it."""
    tokens = Tokens(monkeypatch, "access-1", "access-2" if good else NoToken("it is new"))
    first, second = (f"AUTH XOAUTH2 {bearer(token)}" for token in ("access-1", "access-2"))
    server = offering("AUTH XOAUTH2", {first: "334 e30=", "": "535 5.7.8 no more access-1"})
    outcome = one(Bench(tmp_path, **with_account(smtp_sasl_auth_soft_bounce="no")), server)
    assert tokens.asked == [("anna", ""), ("anna", "access-1")]
    if good:
        assert isinstance(outcome, Sent)
        assert server.sessions[0][1:4] == [first, "", second]
    else:
        assert refused(outcome)[:2] == (Deferred, "4.7.8")
        assert refused(outcome)[2].endswith("said: 535 5.7.8 no more <masked>")


@pytest.mark.parametrize(("wanted", "words"), [("yes", " AUTH=<>"), ("no", "")])
def test_mail(tmp_path: Path, wanted: str, words: str) -> None:
    server = offering("AUTH PLAIN")
    one(Bench(tmp_path, **values(smtp_send_dummy_mail_auth=wanted)), server)
    assert f"MAIL FROM:<a@example.org>{words}" in server.sessions[0]
    stranger = offering("8BITMIME")
    one(Bench(tmp_path, **values(smtp_send_dummy_mail_auth=wanted)), stranger)
    assert "MAIL FROM:<a@example.org>" in stranger.sessions[0]


@pytest.mark.parametrize("words", ["8BITMIME", "AUTH PLAIN"])
def test_strangers(tmp_path: Path, words: str) -> None:
    """A server without AUTH, or without a password of ours, gets the mail all the same."""
    maps = "inline:{other.test=a:b}" if "AUTH" in words else "static:a:b"
    server = offering(words)
    assert isinstance(one(Bench(tmp_path, **values(smtp_sasl_password_maps=maps)), server), Sent)
    assert not any(line.startswith("AUTH") for line in server.sessions[0])


# which login

LOOKUPS = [
    ("{ {127.0.0.1 = host:1} {[127.0.0.1]:PORT = dest:2} }", "a@b.test", "host:1"),
    ("{ {[127.0.0.1]:PORT = dest:2} }", "a@b.test", "dest:2"),
    ("{ {127.0.0.1 = host:1} {a@b.test = full:3} {@b.test = domain:4} }", "a@b.test", "full:3"),
    ("{ {127.0.0.1 = host:1} {a@b.test = full:3} {@b.test = domain:4} }", "A+x@B.test", "full:3"),
    ("{ {127.0.0.1 = host:1} {a@b.test = full:3} {@b.test = domain:4} }", "c@b.test", "domain:4"),
    ("{ {127.0.0.1 = host:1} {c = local:5} }", "c@ours.test", "local:5"),
    ("{ {127.0.0.1 = host:1} {c = local:5} }", "c@b.test", "host:1"),
    ("{ {127.0.0.1 = host:1} }", "", "host:1"),
    ("{ {127.0.0.1 = user} }", "", "user:"),
    ("{ {127.0.0.1 = user:pass:word} }", "", "user:pass:word"),
]


@pytest.mark.parametrize(("table", "sender", "login"), LOOKUPS)
def test_lookups(tmp_path: Path, table: str, sender: str, login: str) -> None:
    async def main() -> str:
        async with (server := offering("AUTH PLAIN")):
            bench = Bench(
                tmp_path,
                **values(
                    smtp_sasl_password_maps=f"inline:{table.replace('PORT', str(server.port))}",
                    smtp_sender_dependent_authentication="yes",
                    recipient_delimiter="+",
                    mydestination="ours.test",
                ),
            )
            await bench.run(bench.delivery(f"[127.0.0.1]:{server.port}", sender=sender))
            return server.sessions[0][1].split()[2]

    user, _, password = login.partition(":")
    assert base64.b64decode(asyncio.run(main())).decode() == f"\0{user}\0{password}"


def test_delimiter(tmp_path: Path) -> None:
    server = offering("AUTH PLAIN")
    bench = Bench(
        tmp_path,
        **values(smtp_sasl_password_maps="static:a:b|c", smtp_sasl_password_result_delimiter="|"),
    )
    one(bench, server)
    assert base64.b64decode(server.sessions[0][1].split()[2]) == b"\0a:b\0c"


def test_a_table_that_fails(tmp_path: Path, logged: list[str]) -> None:
    bench = Bench(tmp_path, **values(smtp_sasl_password_maps="fail:x"))
    server = offering("AUTH PLAIN")
    assert refused(one(bench, server)) == (
        Deferred, "4.3.0", f"local data error while talking to {NAME}")  # fmt: skip
    assert any(line.endswith(": smtp_sasl_password_maps lookup error") for line in logged)


# what comes of it

OUTCOMES = [
    ("AUTH PLAIN", {"AUTH": "535 5.7.8 no"}, "4.7.8", f"; server {NAME} said: 535 5.7.8 no"),
    ("AUTH PLAIN", {"AUTH": "454 4.7.0 no"}, "4.7.0", f"; server {NAME} said: 454 4.7.0 no"),
    ("AUTH PLAIN", {"AUTH": "640 what"}, "4.5.0", f"; server {NAME} said: 640 what"),
    ("AUTH PLAIN", {"AUTH": "334 YWJj"}, "4.7.0",
     f"; cannot authenticate to server {NAME}: generic failure"),
    ("AUTH LOGIN", {"AUTH": "334 ***"}, "4.7.0",
     f"; cannot authenticate to server {NAME}: generic failure"),
    ("AUTH SCRAM-SHA-256", {"AUTH": "235 sure"}, "4.7.0",
     f"; cannot authenticate to server {NAME}: generic failure"),
    ("AUTH", {}, "4.7.0", f": server {NAME} offered no compatible authentication mechanisms"
     " for this type of connection security"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "script", "dsn", "reason"), OUTCOMES)
def test_failures(
    tmp_path: Path, words: str, script: dict[str, str], dsn: str, reason: str
) -> None:
    outcome = one(Bench(tmp_path, **values()), offering(words, script))
    assert refused(outcome) == (Deferred, dsn, f"SASL authentication failed{reason}")


def test_hard(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **values(smtp_sasl_auth_soft_bounce="no"))
    outcome = one(bench, offering("AUTH PLAIN", {"AUTH": "535 5.7.8 no"}))
    assert refused(outcome)[:2] == (Bounced, "5.7.8")
    assert isinstance(outcome, Bounced)
    assert (outcome.mta, outcome.diag_type, outcome.diag_text) == (
        "127.0.0.1", "smtp", "535 5.7.8 no")  # fmt: skip


def test_what_makes_no_sense_is_not_hard(tmp_path: Path) -> None:
    bench = Bench(tmp_path, **values(smtp_sasl_auth_soft_bounce="no"))
    outcome = one(bench, offering("AUTH PLAIN", {"AUTH": "334 YWJj"}))
    assert isinstance(outcome, Deferred)
    assert (outcome.diag_type, outcome.diag_text) == ("x-sasl", "generic failure")


HOSTILE = {
    "long": "334 " + "A" * 100_000,
    "long lines": "\r\n".join(["334-" + "A" * 1000] * 200),
    "cut": "334 " + base64.b64encode(b"x" * 3000).decode(),
    "garbage": "hello\r\nthere\r\n334 ",
    "NUL": "334 AAA\0",
    "empty": "334",
    "no reply": "\x00\xff\xfe",
}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2"])
@pytest.mark.parametrize("reply", HOSTILE.values(), ids=HOSTILE)
def test_hostile_servers(tmp_path: Path, reply: str, mechanism: str) -> None:
    """Whatever a server says, and however often, the mail waits; and it does not wait for ever."""
    bench = Bench(tmp_path, limit=1.0, **values(smtp_sasl_mechanism_filter=mechanism.lower()))
    server = Persistent({"EHLO": f"250-sink.test\r\n250 AUTH {mechanism}"}, stubborn=reply)
    outcome = one(bench, server)
    assert isinstance(outcome, Deferred)
    assert outcome.dsn in ("4.7.0", "4.4.2")
    assert len(server.sessions[0]) < 20


@pytest.mark.parametrize("reply", [CLOSE, "221 bye"])
def test_lost(tmp_path: Path, reply: str) -> None:
    outcome = one(Bench(tmp_path, **values()), offering("AUTH PLAIN", {"AUTH": reply}))
    assert refused(outcome)[1:] == (
        "4.4.2", f"lost connection with {NAME} while performing the EHLO handshake")  # fmt: skip


def test_slow(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=0.5, **values())
    outcome = one(bench, offering("AUTH PLAIN", {"AUTH": HANG}))
    assert refused(outcome)[2].startswith(f"conversation with {NAME} timed out while")


def test_filter(tmp_path: Path, logged: list[str]) -> None:
    bench = Bench(tmp_path, **values(smtp_sasl_mechanism_filter="!plain, static:all"))
    server = offering("AUTH PLAIN")
    assert "offered no compatible" in refused(one(bench, server))[2]
    name = f"{NAME}:{server.port}"
    assert f"warning: {name} offered no supported AUTH mechanisms: 'PLAIN'" in logged


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"smtp_sasl_password_maps": ""}, "specify a password table via the"),
        ({"smtp_sasl_type": "dovecot"}, "SASL library initialization"),
        ({"smtp_sasl_security_options": "nosuch"}, "smtp_sasl_security_options: unknown SASL"),
    ],
)
def test_configuration(tmp_path: Path, parameters: dict[str, str], text: str) -> None:
    with pytest.raises(Fatal, match=text):
        Bench(tmp_path, **values(**parameters))


# with TLS


@pytest.mark.parametrize(
    ("level", "options", "sent"),
    [
        ("encrypt", "smtp_sasl_tls_security_options", True),
        ("encrypt", "smtp_sasl_tls_verified_security_options", False),
        ("secure", "smtp_sasl_tls_verified_security_options", True),
    ],
)
def test_options_in_tls(tmp_path: Path, level: str, options: str, sent: bool) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    parameters = {
        "smtp_sasl_security_options": "noplaintext",
        "smtp_tls_security_level": level,
        "smtp_tls_wrappermode": "yes",
        "smtp_tls_CAfile": str(authority.certificate),
        "smtp_tls_secure_cert_match": "localhost",
        options: "noanonymous",
    }
    server = offering("AUTH PLAIN", wrapped=context)
    outcome = one(Bench(tmp_path, **values(**parameters)), server)
    assert isinstance(outcome, Sent if sent else Deferred)
    assert any(line.startswith("AUTH") for line in server.sessions[0]) is sent


# sessions that are kept


@pytest.mark.parametrize(("by_sender", "sessions"), [("yes", 2), ("no", 1)])
def test_no_reuse_over_logins(tmp_path: Path, by_sender: str, sessions: int) -> None:
    async def main() -> list[list[str]]:
        bench = Bench(
            tmp_path,
            **values(
                smtp_sasl_password_maps="inline:{{a@b.test=a:1}, {127.0.0.1=b:2}}",
                smtp_sender_dependent_authentication=by_sender,
            ),
        )
        async with (server := offering("AUTH PLAIN")):
            for sender in ("a@b.test", "c@b.test", "a@b.test", "c@b.test"):
                flags = int(DeliverFlag.KEEP)
                delivery = bench.delivery(f"[127.0.0.1]:{server.port}", sender=sender, flags=flags)
                outcomes = await bench.run(delivery)
                assert isinstance(outcomes["b@example.org"], Sent)
            bench.client.cache.close()
            await server.all_sessions_end()
            return server.sessions

    heard = asyncio.run(main())
    assert len(heard) == sessions
    for lines in heard:
        assert sum(line.startswith("AUTH") for line in lines) == 1
        assert sum(line.startswith("MAIL") for line in lines) == 4 // sessions


# what nobody sees


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2"])
@pytest.mark.parametrize("echo", [True, False])
def test_secrets(tmp_path: Path, logged: list[str], mechanism: str, echo: bool) -> None:
    """Not even where the server repeats them."""
    told = " ".join(SECRETS) if echo else "no"
    script = {"AUTH": "334 ", "QUIT": "221 bye"}
    for secret in SECRETS:
        script[secret] = f"501 5.5.2 {told}"
    if mechanism == "PLAIN":
        script["AUTH"] = f"501 5.5.2 {told}"
    bench = Bench(
        tmp_path,
        notify_classes="protocol",
        **values(smtp_sasl_mechanism_filter="plain,login,xoauth2"),
    )
    _, outcomes = deliver(bench, offering(f"AUTH {mechanism}", script))
    shown = [*logged, outcomes["b@example.org"].reason, repr(bench.records.asked)]
    if bench.notices.messages:
        shown += transcript(bench.notices)
    for text in shown:
        assert not any(secret in text for secret in SECRETS)


def test_what_the_postmaster_sees(tmp_path: Path) -> None:
    bench = Bench(tmp_path, notify_classes="protocol", **values())
    deliver(bench, offering("AUTH PLAIN", {"MAIL": "501 5.1.7 bad"}))
    said = transcript(bench.notices)
    assert " Out: AUTH PLAIN <masked>" in said
    assert " In:  235 2.7.0 welcome" in said


# what was refused before


def internal() -> InternalTable:
    return InternalTable("internal:refused", TableOptions(fold=False))


def test_refusals() -> None:
    now = [1000.0]
    refusals = RefusalCache(internal(), 100, lambda: now[0])
    refusal = Refusal("5.7.8", "535 5.7.8 no; never")

    async def main() -> None:
        assert await refusals.find("h", "u", "p") is None
        await refusals.note("h", "u", "p", refusal)
        assert await refusals.find("h", "u", "p") == refusal
        assert await refusals.find("other", "u", "p") is None
        now[0] += 101
        assert await refusals.find("h", "u", "p") is None
        await refusals.note("h", "u", "p", refusal)
        assert await refusals.find("h", "u", "new") is None
        assert await refusals.find("h", "u", "p") is None  # forgotten

    asyncio.run(main())


@pytest.mark.parametrize("value", ["", ";", "x;y", "²;a;b;c", "9" * 30 + ";a;b;c"])
def test_damaged_entries(value: str) -> None:
    table = internal()

    async def main() -> None:
        await table.update("h;u", value or " ")
        assert await RefusalCache(table, 100).find("h", "u", "p") is None

    asyncio.run(main())


def test_a_cache_that_fails(logged: list[str]) -> None:
    refusals = RefusalCache(UnavailableTable("lmdb:x", "gone", LOG), 100)
    asyncio.run(refusals.note("h", "u", "p", Refusal("5.7.8", "no")))
    assert asyncio.run(refusals.find("h", "u", "p")) is None
    assert any("lmdb:x" in line for line in logged)


def test_refused_before(tmp_path: Path) -> None:
    server = offering("AUTH PLAIN", {"AUTH": "535 5.7.8 no"})

    async def main() -> list[Outcome]:
        bench = Bench(
            tmp_path,
            **values(
                mail_owner=getpass.getuser(), smtp_sasl_auth_cache_name=f"lmdb:{tmp_path}/refused"
            ),
        )
        async with server:
            found: list[Outcome] = []
            for _ in range(2):
                outcomes = await bench.run(bench.delivery(f"[127.0.0.1]:{server.port}"))
                found += outcomes.values()
            await server.all_sessions_end()
            return found

    first, second = (refused(outcome) for outcome in asyncio.run(main()))
    assert first[2] == f"SASL authentication failed; server {NAME} said: 535 5.7.8 no"
    assert second == (
        Deferred,
        "4.7.8",
        "SASL [CACHED] authentication failed; server 127.0.0.1 said: 535 5.7.8 no",
    )
    tried = [sum(line.startswith("AUTH") for line in lines) for lines in server.sessions]
    assert tried == [1, 0]
    assert PASSWORD.encode() not in (tmp_path / "refused.lmdb").read_bytes()


@pytest.mark.parametrize("peers", ["127.0.0.0/8", "127.0.0.1", "other.test, static:x"])
def test_a_watched_session_is_told_without_secrets(
    tmp_path: Path, logged: list[str], peers: str
) -> None:
    """debug_peer_list. The server repeats what it should not."""
    server = AuthServer(
        {"EHLO": "250-x\r\n250 AUTH PLAIN", "AUTH": f"235 hello {PASSWORD} {PLAIN}"}
    )
    assert isinstance(one(Bench(tmp_path, **values(debug_peer_list=peers)), server), Sent)
    peer = f"{NAME}:{server.port}"
    told = [line for line in logged if line.startswith(("< ", "> "))]
    assert f"> {peer}: (left out)" in told
    assert f"< {peer}: 235" in told
    assert any(line.startswith(f"> {peer}: MAIL FROM:<") for line in told)
    assert f"< {peer}: 250-x" in told
    assert not [line for line in logged for secret in SECRETS if secret in line]


def test_who_is_not_watched_is_not_told_of(tmp_path: Path, logged: list[str]) -> None:
    peers = values(debug_peer_list="192.0.2.0/24, other.test")
    assert isinstance(one(Bench(tmp_path, **peers), AuthServer()), Sent)
    assert not [line for line in logged if line.startswith(("< ", "> "))]
