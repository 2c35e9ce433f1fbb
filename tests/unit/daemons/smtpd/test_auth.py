"""AUTH with servers that misbehave, what a session forgets, and the name in a Received header."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from daemons.smtpd.received import Station, received
from daemons.smtpd.tls_setup import TlsSetup
from libmail.clients.dovecot import DovecotServer
from libmail.lookup.facts import Facts, Sasl
from tests.unit.daemons.smtpd.fakes import Instance, running
from tests.unit.libmail.sasl.test_dovecot import GREETING

SETTINGS = """
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
notify_classes = protocol, policy, resource, software, data
"""
TOKEN = base64.b64encode(b"\0anna\0a secret").decode()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Talk:
    """A client. say: sends a line and gives the last line of the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> str:
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 60)).decode().rstrip("\r\n")
            if line[3:4] != "-":
                return line

    async def say(self, line: str) -> str:
        self.writer.write(line.encode() + b"\r\n")
        return await self.answer()


def play(
    folder: Path, answer: Callable[[list[str]], bytes], play: Callable[[Talk], Awaitable[None]]
) -> Instance:
    """Play a client; answer: what the server says to the fields of a line; b"" ends it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while line := (await reader.readline()).decode().rstrip("\n"):
            fields = line.split("\t")
            if fields[0] in ("AUTH", "CONT"):
                words = answer(fields)
                writer.write(words)
                if not words:
                    break
        writer.close()
        await writer.wait_closed()

    async def run() -> Instance:
        serving: list[asyncio.Task[None]] = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.append(asyncio.create_task(serve(reader, writer)))

        async with running(folder, SETTINGS) as instance:
            server = await asyncio.start_unix_server(accept, "private/auth")
            talk = Talk(*await instance.connect())
            await talk.answer()
            await talk.say("EHLO client.test")
            await play(talk)
            talk.writer.close()
            async with asyncio.timeout(60):
                await instance.runtime.session_over.wait()
            server.close()
            dovecot = instance.server.logins._server
            assert isinstance(dovecot, DovecotServer)
            dovecot.close()
            await asyncio.gather(*serving, return_exceptions=True)
        return instance

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (b"", "454 4.7.0 Temporary authentication failure: Connection lost"),
        (b"FAIL\t%b\ttemp\treason=busy\n", "454 4.7.0 Temporary authentication failure: busy"),
        (b"FAIL\t%b\tuser=anna\treason=a\1nb\n", "535 5.7.8 Error: authentication failed: a?b"),
        (b"OK\t%b\n", "454 4.7.0 Temporary authentication failure: Connection lost"),
        (b"CONT\t%b\t!\n", "454 4.7.0 Temporary authentication failure: Connection lost"),
        (b"OK\t%b\tuser=anna\n", "235 2.7.0 Authentication successful"),
        (b"x" * 70000, "454 4.7.0 Temporary authentication failure: Connection lost"),
    ],
)
def test_what_a_server_says(tmp_path: Path, words: bytes, want: str) -> None:
    async def client(talk: Talk) -> None:
        assert (await talk.say(f"AUTH PLAIN {TOKEN}")).startswith(want)
        assert await talk.say("NOOP") == "250 2.0.0 Ok"

    instance = play(tmp_path, lambda f: words % f[1].encode() if b"%b" in words else words, client)
    assert not [line for line in instance.mail.log if "secret" in line or TOKEN in line]


def test_secrets_do_not_reach_the_postmaster(tmp_path: Path) -> None:
    async def client(talk: Talk) -> None:
        assert (await talk.say("AUTH PLAIN")).startswith("334")
        assert (await talk.say(TOKEN)).startswith("535")
        assert (await talk.say("AUTH PLAIN")).startswith("334")
        assert (await talk.say("abc")).startswith("535")
        assert (await talk.say("FOO")).startswith("500")
        assert (await talk.say("QUIT")).startswith("221")

    instance = play(
        tmp_path, lambda f: f"{'FAIL' if f[0] == 'CONT' else 'CONT'}\t{f[1]}\t\n".encode(), client
    )
    (notice,) = instance.mail.messages
    assert notice.content.count(b" In:  <masked>\r\n") == 2
    assert TOKEN.encode() not in notice.content


def test_a_client_that_goes_away_ends_its_exchange(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def answer(fields: list[str]) -> bytes:
        seen.append(fields)
        return f"CONT\t{fields[1]}\t\n".encode()

    async def client(talk: Talk) -> None:
        assert (await talk.say("AUTH PLAIN")).startswith("334")

    instance = play(tmp_path, answer, client)
    assert "NOQUEUE: lost connection after AUTH from unknown[127.0.0.1]" in instance.mail.log
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("login", "shown"),
    [
        ("anna@x", "anna@x"),
        ("a(b)c", "a(b)c"),
        ("a)b(c", "a?b(c)"),
        ("a\\b\u00e9", "a?b??"),
    ],
)
def test_the_name_in_a_received_header(login: str, shown: str) -> None:
    facts = Facts(sasl=Sasl("PLAIN", login), protocol="ESMTP")
    station = Station(
        hostname="mx.test",
        mail_name="Postfix",
        hide_client=False,
        name_sender=True,
        tls=cast(TlsSetup, None),  # not looked at without TLS
    )
    header = received(
        station, facts, smtputf8=False, queue_id="ID", recipient=None, date="today"
    ).decode()
    assert f"\r\n\t(Authenticated sender: {shown})\r\n\tby mx.test (Postfix) with ESMTPA" in header


def test_cyrus_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who could log in is not known, so that nobody is told that he may not send."""
    monkeypatch.setitem(sys.modules, "libmail.clients.cyrus", None)

    async def run() -> list[str]:
        async with running(tmp_path, "smtpd_sasl_auth_enable = yes") as instance:
            talk = Talk(*await instance.connect())
            await talk.answer()
            assert (await talk.say("EHLO client.test"))[:3] == "421"
            talk.writer.close()
            await talk.writer.wait_closed()
            return instance.mail.log

    told = "smtpd_sasl_type = cyrus: import of libmail.clients.cyrus halted"
    assert any(told in line and line.endswith("nobody can log in") for line in asyncio.run(run()))
