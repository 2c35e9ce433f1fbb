"""Access tokens: from a token server to a server that wants them, whatever the former says."""

from __future__ import annotations

import base64
import os
import re
import signal
import stat
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import session_members, wait_until
from tests.system.sink import PythonSink
from tests.system.token_server import TokenServer, error, response, tokens

MESSAGE = b"Subject: test\r\n\r\nhello\r\n"
SECRETS = ("access-", "refresh-", "our-client-secret")
FORMS = ("%s", "user=anna@mail.test\1auth=Bearer %s\1\1")


class Peer:
    """A server that lets in who has a token that it knows."""

    def __init__(self) -> None:
        self.good = {"access-1", "access-2"}
        self.seen: list[str] = []
        self.sink = PythonSink(free_port(), script=self._script, keywords=("AUTH PLAIN XOAUTH2",))

    def _script(self, verb: str, line: str) -> str | None:
        if verb == "CONNECT":
            return "220 sink.test ESMTP"
        if verb == "AUTH":
            words = line.split()
            assert words[1] == "XOAUTH2"
            said = base64.b64decode(words[2]).decode()
            match = re.fullmatch("user=anna@mail.test\1auth=Bearer (.*)\1\1", said)
            assert match
            self.seen.append(match[1])
            return "235 2.7.0 welcome" if match[1] in self.good else "535 5.7.8 not this one"
        return None


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    with peer.sink:
        yield peer


def client(
    make_system: MakeSystem, server: TokenServer, peer: Peer, *, token: bool = True, **more: str
) -> MailSystem:
    nexthop = f"[127.0.0.1]:{peer.sink.port}"
    system = make_system(
        main={
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_password_maps": f"inline:{{ {{{nexthop}=anna@mail.test:{{oauth2}}anna}} }}",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_auth_soft_bounce": "no",
            "import_environment": "MAIL_CONFIG MAIL_FORBID_LATE_IMPORTS=1",
            "minimal_backoff_time": "1h",
            "maximal_backoff_time": "1h",
            **more,
        },
        master=("smtp unix - - n - - smtp -v",),
    )
    system.route("next.test", f"smtp:{nexthop}")
    server.account(system.config_directory / "oauth2", "anna")
    for name in ("oauth2", "oauth2/anna"):
        os.chown(system.config_directory / name, system.user.pw_uid, system.user.pw_gid)
    if token:
        give(system, "refresh-1")
    system.start()
    return system


def give(system: MailSystem, token: str) -> None:
    done = system.run("postfix", "oauth2", "anna", "token", stdin=f"{token}\n".encode())
    assert done.returncode == 0, done.stderr


def send(system: MailSystem) -> None:
    system.send("a@mail.test", ["x@next.test"], MESSAGE)


def tells_nothing(system: MailSystem) -> None:
    text = system.log_text()
    for secret in SECRETS:
        for form in FORMS:
            shown = form.replace("%s", secret)
            assert shown not in text
            # The part in base64 that no neighbour changes.
            assert base64.b64encode(shown.encode()).decode()[:-4] not in text


def deferred(system: MailSystem, reason: str, count: int = 1) -> None:
    system.wait_for_log(
        r"dsn=4\.7\.0, status=deferred \(SASL authentication failed; cannot authenticate to server"
        rf" \S+: no access token of account anna: {reason}",
        count=count,
    )


def test_one_token_for_all(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    """Without a line in master.cf; a refresh token of the server is kept."""
    with TokenServer(tmp_path, lambda *_: tokens("access-1", refresh_token="refresh-2")) as server:
        system = client(make_system, server, peer)
        server.hold.clear()
        for _ in range(5):
            send(system)
        wait_until(lambda: bool(server.asked), system.log_text)
        server.hold.set()
        system.wait_for_log("status=sent", count=5)
        fields = {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-1",
            "client_id": "our-client",
            "client_secret": "our-client-secret",
        }
        assert server.asked == [("/token", fields)]
    assert set(peer.seen) == {"access-1"}
    kept = system.top / "data/oauth2/anna"
    assert kept.read_text() == "refresh-2\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    system.wait_for_queue_empty()
    tells_nothing(system)


def test_consent_has_gone(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    """Mail waits, however hard the words are, and goes on when somebody has agreed again."""
    words = "Token refresh-1 has been\x1b[1m revoked"
    with TokenServer(tmp_path, lambda *_: error("invalid_grant", words)) as server:
        system = client(make_system, server, peer)
        system.allow("no access token")
        send(system)
        reason = (
            r"the owner has to agree again, by postfix oauth2 anna"
            r" \(invalid_grant: Token <masked> has been\?\[1m revoked\)"
        )
        system.wait_for_log(f"warning: anna: no access token: {reason}")
        deferred(system, reason)
        send(system)
        deferred(system, reason, count=2)
        assert len(server.asked) == 1
        server.script = lambda *_: tokens("access-1")
        give(system, "refresh-2")
        system.run("postqueue", "-f")
        system.wait_for_log("status=sent", count=2)
        assert [form["refresh_token"] for _, form in server.asked] == ["refresh-1", "refresh-2"]
    tells_nothing(system)


def test_rate_limit(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    def script(path: str, form: dict[str, str]) -> bytes:
        when = formatdate(4_000_000_000, usegmt=True)  # by its clock
        return error("slow_down", "", f"Retry-After: {when}", status=429)

    with TokenServer(tmp_path, script) as server:
        system = client(make_system, server, peer)
        system.allow("no access token")
        for number in range(3):
            send(system)
            deferred(system, "too many requests: slow_down", count=number + 1)
        assert len(server.asked) == 1
    tells_nothing(system)


def test_refused_by_the_server(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    """Whose clock is ahead, or who knows of a revocation: mail waits, though it says 535."""
    peer.good.clear()
    with TokenServer(tmp_path, lambda *_: tokens("access-1")) as server:
        system = client(make_system, server, peer)
        send(system)
        system.wait_for_log(r"dsn=4\.7\.8, status=deferred .*535 5\.7\.8 not this one")
        assert peer.seen == ["access-1"]
        assert len(server.asked) == 1
    tells_nothing(system)


LIES = {
    "no HTTP": (b"220 mx.test ESMTP\r\n\r\n", "localhost: not an HTTP server"),
    "nothing": (b"", "localhost: answer cut short"),
    "no JSON": (response(200, b"<html>"), "malformed answer: no JSON object"),
    "no token": (response(200, {}), "malformed answer: no JSON object"),
    "two lines": (tokens("access-1\r\nRSET"), "malformed answer: no token"),
    "long ago": (tokens("access-1", -5), "malformed answer: no time"),
    "elsewhere": (response(307, b"", "Location: https://x.test/"), "HTTP status 307"),
    "down": (error("server_error", status=500), "server_error"),
    "huge": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000, "localhost: answer too long"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies(make_system: MakeSystem, tmp_path: Path, peer: Peer, lie: str) -> None:
    said, reason = LIES[lie]
    with TokenServer(tmp_path, lambda *_: said) as server:
        system = client(make_system, server, peer)
        system.allow("no access token")
        send(system)
        deferred(system, reason)
    assert peer.seen == []
    tells_nothing(system)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("elsewhere.test", "Hostname mismatch, certificate is not valid for 'localhost'"),
     ("localhost", "unable to get local issuer certificate")],
)  # fmt: skip
def test_somebody_else(
    make_system: MakeSystem, tmp_path: Path, peer: Peer, name: str, reason: str
) -> None:
    """Nothing is told to a server that is not the one."""
    with TokenServer(tmp_path, lambda *_: tokens("access-1"), name) as server:
        system = client(make_system, server, peer, token=False)
        if name == "localhost":
            server.account(system.config_directory / "oauth2", "anna", authorities="")
        give(system, "refresh-1")
        system.run("postfix", "reload")
        system.allow("no access token")
        send(system)
        deferred(system, f"localhost: {reason}")
        assert server.asked == []


def oauth_processes(system: MailSystem) -> list[int]:
    return [one.pid for one in session_members(system.session) if "oauth2" in one.title()]


def test_killed(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    """While it waits for an answer: mail waits, and the next one asks again."""
    with TokenServer(tmp_path, lambda *_: tokens("access-1")) as server:
        system = client(make_system, server, peer)
        system.allow("killed by signal 9")
        server.hold.clear()
        send(system)
        wait_until(lambda: len(server.asked) == 1, system.log_text)
        for pid in oauth_processes(system):
            os.kill(pid, signal.SIGKILL)
        deferred(system, "private/oauth2: lost connection")
        server.hold.set()
        system.run("postqueue", "-f")
        system.wait_for_log("status=sent")
        assert len(server.asked) == 2


def test_consent(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    """postfix oauth2: codes, patience, a refresh token."""
    polls = iter([error("authorization_pending"), tokens("access-0", refresh_token="refresh-1")])

    def script(path: str, form: dict[str, str]) -> bytes:
        if path == "/device":
            assert form == {"client_id": "our-client", "scope": "mail"}
            codes = {"device_code": "code-1", "user_code": "WDJB-MJHT", "interval": 1}
            return response(200, {**codes, "verification_uri": "https://x.test/device"})
        if form["grant_type"] == "refresh_token":
            return tokens("access-1")
        assert form["device_code"] == "code-1"
        return next(polls)

    with TokenServer(tmp_path, script) as server:
        system = client(make_system, server, peer, token=False)
        system.allow("no access token")
        send(system)
        deferred(system, ".*there is no refresh token")
        server.account(system.config_directory / "oauth2", "anna", scope="mail")
        done = system.run("postfix", "oauth2", "anna")
        assert done.returncode == 0, done.stderr
        told = "Open https://x.test/device in a browser and enter the code WDJB-MJHT"
        assert told in done.stdout.decode()
        assert "refresh-1" not in done.stdout.decode() + done.stderr.decode()
        system.run("postqueue", "-f")
        system.wait_for_log("status=sent")
        kept = system.top / "data/oauth2/anna"
        assert kept.read_text() == "refresh-1\n"
        assert kept.stat().st_uid == system.user.pw_uid
    tells_nothing(system)


def test_a_new_account(make_system: MakeSystem, tmp_path: Path, peer: Peer) -> None:
    """What is not there yet is asked for; standard input answers."""
    with TokenServer(tmp_path, lambda *_: tokens("access-1")) as server:
        system = client(make_system, server, peer)
        where = f"https://localhost:{server.port}/token"
        said = f"{where}\n\nmail\nthe-client\nthe-secret\nrefresh-9\n".encode()
        done = system.run("postfix", "oauth2", "bert", "token", stdin=said)
        assert done.returncode == 0, done.stderr
        path = system.config_directory / "oauth2/bert"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() == (
            f"token_endpoint = {where}\nscope = mail\n"
            "client_id = the-client\nclient_secret = the-secret\n"
        )
        assert "user:{oauth2}bert" in done.stdout.decode()
    system.allow("usage: postfix oauth2|not a name of an account")
    for words in (["../x"], ["anna", "x"], [], ["anna", "token", "x"]):
        assert system.run("postfix", "oauth2", *words, stdin=b"").returncode == 1
