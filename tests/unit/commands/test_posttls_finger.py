"""posttls-finger(1), against Python's own TLS, and its options."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from commands.posttls_finger import main
from commands.posttls_finger.settings import read_options
from commands.posttls_finger.talk import LostServer, Talk
from libmail.log import Fatal
from tests.certificates import Authority, Issued
from tests.unit.libmail.dns.fake_server import FakeServer

EHLO = "250-mx.test\r\n250-STARTTLS\r\n250 PIPELINING\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue("mx.test", "mx.test")


@pytest.fixture(autouse=True)
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.11\nmyhostname = me.test\ninet_protocols = ipv4\n"
    )
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))


class Peer:
    """A server in a thread. replies: to verbs. wrapped: TLS comes first."""

    def __init__(
        self, issued: Issued, replies: dict[str, str] | None = None, *, wrapped: bool = False
    ) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(issued.chain)
        self.replies = {"": "220 mx.test\r\n", "EHLO": EHLO, "LHLO": EHLO,
                        "STARTTLS": "220 go on\r\n", "QUIT": "221 bye\r\n"}  # fmt: skip
        self.replies.update(replies or {})
        self.wrapped = wrapped
        self.sessions = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sessions += 1
            with sock, suppress(OSError, UnicodeDecodeError, IndexError):
                self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        if self.wrapped:
            sock = self.context.wrap_socket(sock, server_side=True)
        sock.sendall(self.replies[""].encode())
        while data := sock.recv(4096):
            verb = data.decode().split()[0]
            sock.sendall(self.replies.get(verb, "500 what?\r\n").encode())
            if verb == "STARTTLS" and self.replies[verb].startswith("220"):
                sock = self.context.wrap_socket(sock, server_side=True)
            elif verb == "QUIT":
                break
        sock.close()


@pytest.fixture
def finger(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def run(*words: str, status: int = 0) -> list[str]:
        assert main(words) == status
        out, err = capsys.readouterr()
        lines = (out + err).splitlines()
        assert "Traceback" not in err
        return [line.removeprefix("posttls-finger: ") for line in lines]

    return run


Run = Callable[..., list[str]]


def test_right_server(finger: Run, issued: Issued, authority: Authority) -> None:
    ca = str(authority.certificate)
    with Peer(issued) as peer:
        told = finger("-l", "secure", "-F", ca, f"[127.0.0.1]:{peer.port}", "mx.test")
    name = f"127.0.0.1[127.0.0.1]:{peer.port}"
    assert told[:4] == [f"Connected to {name}", "< 220 mx.test", "> EHLO me.test", "< 250-mx.test"]
    assert f"{name}: matched peername: mx.test" in told
    assert any(line.startswith(f"{name}: subject_CN=mx.test, issuer_CN=") for line in told)
    assert any(line.startswith(f"Verified TLS connection established to {name}: ") for line in told)
    assert told[-2:] == ["> QUIT", "< 221 bye"]


def test_trust_anchor(finger: Run, issued: Issued, authority: Authority) -> None:
    with Peer(issued) as peer:
        told = finger("-c", "-l", "verify", "-A", str(authority.certificate),
                      f"[127.0.0.1]:{peer.port}", "mx.test")  # fmt: skip
    assert any(line.endswith(": Matched trust anchor") for line in told)
    assert any(line.startswith("Verified TLS") for line in told)


def test_wrong_server(finger: Run, issued: Issued) -> None:
    with Peer(issued) as peer:
        told = finger("-c", "-l", "secure", f"[127.0.0.1]:{peer.port}", "other.test")
    assert told[0].startswith("certificate verification failed for 127.0.0.1[127.0.0.1]:")
    assert any(line.startswith("Untrusted TLS connection established") for line in told)
    assert not any(line.startswith(("<", ">", "Connected")) for line in told)


def test_fingerprint_and_chain(finger: Run, issued: Issued) -> None:
    digest = hashlib.sha256(issued.der()).hexdigest()
    with Peer(issued) as peer:
        told = finger("-cC", "-L", "summary", "-d", "sha256", "-l", "fingerprint",
                      f"[127.0.0.1]:{peer.port}", digest)  # fmt: skip
    assert told[0].startswith("Verified TLS connection established to ")
    assert told[2:5] == ["---", "Certificate chain", " 0 subject: /CN=mx.test"]
    assert told.count("-----BEGIN CERTIFICATE-----") == 1
    colons = ":".join(re.findall("..", digest)).upper()
    assert f"   cert digest={colons}" in told


def test_reconnect(finger: Run, issued: Issued) -> None:
    with Peer(issued) as peer:
        told = finger("-c", "-l", "encrypt", "-r", "1", f"[127.0.0.1]:{peer.port}")
        assert peer.sessions == 2
    assert "Reconnecting after 1 seconds" in told
    assert told[-1] == "Found a previously used server.  Done reconnecting."


@pytest.mark.parametrize(
    ("replies", "words", "last"),
    [
        ({"": "554 no\r\n"}, [], "Server rejected our connection: 554 no"),
        ({"EHLO": "502 no\r\n"}, [], "EHLO rejected: 502 no"),
        ({"LHLO": "502 no\r\n"}, ["-S"], "LHLO rejected: 502 no"),
        ({"STARTTLS": "454 no\r\n"}, [], "STARTTLS rejected: 454 no"),
        ({"EHLO": "250 mx\r\n"}, [], "< 221 bye"),
        ({}, ["-l", "none"], "< 221 bye"),
        ({"": "220-" + "x" * 70000}, [], "while talking to"),
        ({"": "x\r\n"}, [], "Server rejected our connection: x"),
        ({}, ["-w"], "TLS library problem"),
    ],
)
def test_other_servers(
    finger: Run, issued: Issued, replies: dict[str, str], words: list[str], last: str
) -> None:
    with Peer(issued, replies) as peer:
        told = finger("-l", "encrypt", *words, f"[127.0.0.1]:{peer.port}")
    assert last in told[-1]


def test_wrapped(finger: Run, issued: Issued) -> None:
    with Peer(issued, wrapped=True) as peer:
        told = finger("-w", "-l", "encrypt", f"[127.0.0.1]:{peer.port}")
    assert "> STARTTLS" not in told
    assert told[-1] == "< 221 bye"


def test_nobody_there(finger: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    told = finger("-l", "encrypt", f"[127.0.0.1]:{port}")
    assert told == [
        f"Failed to establish session to [127.0.0.1]:{port} via 127.0.0.1: connect to "
        f"127.0.0.1[127.0.0.1]:{port}: Connection refused"
    ]


def test_dane(finger: Run, issued: Issued, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\n")
    digest = hashlib.sha256(issued.public_key()).hexdigest()
    with Peer(issued) as peer:
        records = ["a.test MX 10 mx.a.test.", "mx.a.test A 127.0.0.1", "plain.test A 127.0.0.1",
                   f"_{peer.port}._tcp.mx.a.test TLSA 3 1 1 {digest}"]  # fmt: skip
        with FakeServer(records) as names:
            _ask(monkeypatch, conf, names.port)
            told = finger("-c", f"a.test:{peer.port}")
            plain = finger("-c", "-l", "dane-only", f"[plain.test]:{peer.port}")
            lost = finger("-c", f"nothing.test:{peer.port}")
    assert any(f": Matched DANE TLSA record: 3 1 1 {digest.upper()}" in line for line in told)
    assert any(line.startswith("Verified TLS connection") for line in told)
    assert plain[0] == 'no TLSA records found, resorting to "secure"'
    assert any(line.startswith("Untrusted TLS connection") for line in plain)
    assert lost[0].startswith("Destination address lookup failed: Host or domain name not found.")


def _ask(monkeypatch: pytest.MonkeyPatch, conf: Path, port: int) -> None:
    from libmail.dns.resolver import Resolver

    def resolver(**options: object) -> Resolver:
        made = Resolver(str(conf), **options)  # type: ignore[arg-type]
        made.use_port(port)
        return made

    monkeypatch.setattr("commands.posttls_finger.probe.Resolver", resolver)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "fatal: usage: posttls-finger [-acCfSvw] "),
        (["-y"], "fatal: usage: posttls-finger [-acCfSvw] "),
        (["-l", "nonsense", "x"], 'fatal: Invalid TLS level "nonsense"'),
        (["-t", "x", "x"], "fatal: option -t: x: not a number"),
        (["-H", "a", "-k", "b", "x"], "options are mutually exclusive"),
        (["-X", "x"], "there is no tlsproxy mode"),
        (["-o", "x", "x"], "missing '=' after attribute name"),
        (["-F", "/nonexistent", "x"], "/nonexistent"),
        (["[x"], "[x"),
    ],
)
def test_mistakes(finger: Run, words: list[str], complaint: str) -> None:
    assert complaint in finger(*words, status=1)[-1]


def test_bad_policy(finger: Run) -> None:
    told = finger("-l", "encrypt", "-p", ">=TLSv1.4", "-L", "odd", "[127.0.0.1]:1")
    assert told == [
        'warning: unknown -L option value "odd"',
        'warning: Invalid TLS protocol list ">=TLSv1.4": aborting TLS session',
    ]


def test_a_reply_has_an_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        talk = Talk(ours)
        theirs.sendall(b"250-a\n250 b\r\nrest")
        assert talk.answer() == (250, ("250-a", "250 b"))
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(LostServer):
            talk.answer()
        talk.close()


def test_options_are_parameters() -> None:
    options = read_options(["-H", "a", "-H", "b", "-o", "myhostname=x", "-f", "a.test", "m", "n"])
    settings = dict(options.settings)
    assert settings["smtp_tls_chain_files"] == "a, b"
    assert settings["smtp_tls_secure_cert_match"] == "m, n"
    assert settings["myhostname"] == "x"
    assert settings["smtp_tls_force_insecure_host_tlsa_lookup"] == "yes"
    with pytest.raises(Fatal):
        read_options([])
