"""Files of traces: names, bounds, and what strangers could put into them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from libmail.tls.client_spec import ClientSpec
from libmail.tls.context import ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.loglevel import LogLevel
from libmail.tls.pem import load_chains
from libmail.tls.traces import FOLDER, TraceFiles, Tracer, TraceRate
from tests.certificates import Authority
from tests.unit.libmail.tls.pair import ANY, CIPHERS, GROUPS, Pair

SPEC = ClientSpec(ciphers=CIPHERS, protocols=ANY)
TRACED = LogLevel(0, trace=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server(authority: Authority) -> ServerContext:
    chains = load_chains([str(authority.issue("mx.example.com").chain)])
    return ServerContext(
        ServerSettings(chains=chains, ciphers=CIPHERS, protocols=ANY, groups=GROUPS)
    )


@pytest.fixture(scope="module")
def client() -> ClientContext:
    return ClientContext(ClientSettings(groups=GROUPS))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = tmp_path / FOLDER
    found.mkdir()
    return found


def test_so_many_in_a_second() -> None:
    clock = Clock()
    rate = TraceRate(2, clock)
    assert [rate.allows() for _ in range(4)] == [True, True, False, False]
    clock.now += 0.9
    assert not rate.allows()
    clock.now += 0.1
    assert [rate.allows() for _ in range(3)] == [True, True, False]
    assert not TraceRate(0, clock).allows()


def test_files(folder: Path) -> None:
    files = TraceFiles(TraceRate(100))
    for address in ("192.0.2.1", "2001:db8::1", "", "192.0.2.1"):
        files.write("smtpd", address, "Sent \x1b[2J\0\u00fc\n\ttext")
    found = sorted(folder.iterdir())
    assert len(found) == 4
    for file in found:
        assert re.fullmatch(r"smtpd-\d{14}\.\d{6}-([0-9a-f.:]+|local)-[0-9a-f]{6}", file.name)
        assert file.read_bytes() == b"Sent ?[2J??\n\ttext"
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("program", "address"),
    [("../x", "192.0.2.1"), ("", ""), ("smtpd", "../../etc"), ("smtpd", "a" * 50)],
)
def test_names_that_are_none(folder: Path, program: str, address: str) -> None:
    with pytest.raises(ValueError, match="no trace"):
        TraceFiles(TraceRate(100)).write(program, address, "x")
    assert not list(folder.iterdir())


def test_too_many_are_left_out(folder: Path) -> None:
    files = TraceFiles(TraceRate(1, Clock()))
    for _ in range(3):
        files.write("smtp", "192.0.2.1", "x")
    assert len(list(folder.iterdir())) == 1


def traced(server: ServerContext, client: ClientContext, tracer: Tracer, level: LogLevel) -> None:
    pair = Pair(server, client, SPEC)
    tracer.begin(pair.server, level)
    pair.shake()
    tracer.end(pair.server, "/a/socket")


def test_handshakes_are_traced(server: ServerContext, client: ClientContext) -> None:
    sent: list[tuple[str, str, str]] = []
    tracer = Tracer("smtpd", 300, 1, lambda *what: sent.append(what))
    traced(server, client, tracer, LogLevel(1))
    assert not sent
    traced(server, client, tracer, TRACED)
    traced(server, client, tracer, TRACED)  # too many
    [(program, address, text)] = sent
    assert (program, address, len(text)) == ("smtpd", "", 300)
    assert "ClientHello" in text


def test_without_room_there_are_none(server: ServerContext, client: ClientContext) -> None:
    sent: list[tuple[str, str, str]] = []
    traced(server, client, Tracer("smtpd", 0, 9, lambda *what: sent.append(what)), TRACED)
    assert not sent
