"""STARTTLS and TLS at once, with Python's own TLS at the other end."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemons.smtpd.prepared import open_tables
from libmail.config import open_config
from libmail.ipc.messages import ClientCounts, EnvelopeFlag
from libmail.log import Fatal
from tests.certificates import Authority
from tests.unit.daemons.smtp.bench import Server as Filter
from tests.unit.daemons.smtpd.fakes import MAIN_CF, Instance, running
from tests.unit.waiting import until

Talk = Callable[[Instance], Awaitable[None]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def serve(folder: Path, authority: Authority, talk: Talk, *lines: str) -> None:
    """An smtpd with a certificate, and more settings."""
    chain = authority.issue("mail.example.test").chain
    settings = (
        "smtpd_tls_security_level = may",
        f"smtpd_tls_chain_files = {chain}",
        "smtpd_tls_loglevel = 1",
        *lines,
    )

    async def main() -> None:
        async with running(folder, "\n".join([*settings, ""])) as instance:
            await asyncio.wait_for(talk(instance), 60)

    asyncio.run(main())


class Client:
    """Talks to an instance; every command waits for its reply."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.socket: asyncio.WriteTransport

    async def connect(self) -> str:
        await self.open()
        return await self.reply()

    async def open(self) -> None:
        self.reader, self.writer = await self.instance.connect()
        self.socket = self.writer.transport

    async def reply(self) -> str:
        lines = []
        while line := (await self.reader.readline()).decode():
            lines.append(line)
            if line[3:4] != "-":
                break
        return "".join(lines)

    async def say(self, *commands: str) -> str:
        reply = ""
        for command in commands:
            self.writer.write(command.encode() + b"\r\n")
            reply = await self.reply()
        return reply

    async def secure(self, certificate: Path | None = None, **more: object) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate is not None:
            context.load_cert_chain(str(certificate))
        await self.writer.start_tls(context, **more)  # type: ignore[arg-type]

    async def starttls(self, certificate: Path | None = None) -> None:
        assert await self.say("STARTTLS") == "220 2.0.0 Ready to start TLS\r\n"
        await self.secure(certificate)

    async def gone(self) -> None:
        """Close, and wait until the session is over."""
        self.writer.close()
        await self.instance.runtime.session_over.wait()
        self.socket.abort()
        await asyncio.sleep(0)


def test_a_message_inside_of_tls(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        assert "250-STARTTLS\r\n" in await client.say("EHLO x", "EHLO x")
        await client.starttls()
        assert await client.say("STARTTLS x") == "501 5.5.4 Syntax: STARTTLS\r\n"
        assert await client.say("STARTTLS") == "554 5.5.1 Error: TLS already active\r\n"
        assert "STARTTLS" not in await client.say("EHLO x")
        await client.say("MAIL FROM:<a@b.org>", "RCPT TO:<alice@example.test>", "DATA")
        lines = "".join(f"line {number}\r\n" for number in range(20_000))
        assert await client.say(f"{lines}.") == "250 2.0.0 Ok: queued as QID1\r\n"
        assert await client.say("QUIT") == "221 2.0.0 Bye\r\n"
        assert await client.reader.read() == b""
        await client.gone()
        content = instance.mail.messages[0].content.decode()
        assert content.endswith(lines)
        assert re.match(
            r"Received: from x \(unknown \[127\.0\.0\.1\]\)\r\n"
            r"\t\(using TLSv1\.3 with cipher \w+ \(\d+/\d+ bits\)\r\n"
            r"\t key-exchange [^\r\n]+ server-signature ECDSA [^\r\n]+\)\r\n"
            r"\t\(No client certificate requested\)\r\n"
            r"\tby mail\.example\.test \(Postfix\) with ESMTPS id QID1\r\n",
            content,
        )
        told = [line for line in instance.mail.log if "TLS connection" in line]
        assert len(told) == 1
        assert told[0].startswith(
            "Anonymous TLS connection established from unknown[127.0.0.1]: TLSv1.3 with cipher "
        )
        assert instance.mail.log[-1] == (
            "disconnect from unknown[127.0.0.1]"
            " ehlo=3 starttls=1/3 mail=1 rcpt=1 data=1 quit=1 commands=8/10"
        )

    serve(tmp_path, authority, talk, "smtpd_tls_received_header = yes")


@pytest.mark.parametrize("hidden", [True, False])
def test_requiretls(tmp_path: Path, authority: Authority, *, hidden: bool) -> None:
    """Announced, and allowed, within TLS only."""
    unknown = "555 5.5.4 Unsupported option: requiretls\r\n"

    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        assert "REQUIRETLS" not in await client.say("EHLO x")
        early = await client.say("MAIL FROM:<a@b.org> requiretls")
        wanted = unknown if hidden else "530 5.7.0 Must issue a STARTTLS command first\r\n"
        assert early == wanted
        await client.starttls()
        assert ("250 REQUIRETLS\r\n" in await client.say("EHLO x")) is not hidden
        answer = await client.say("MAIL FROM:<a@b.org> requiretls")
        assert answer == (unknown if hidden else "250 2.1.0 Ok\r\n")
        if not hidden:
            await client.say("RCPT TO:<alice@example.test>", "DATA", "Subject: x\r\n\r\n.")
            (message,) = instance.mail.messages
            assert message.envelope.flags & EnvelopeFlag.REQUIRETLS
            value = await client.say("MAIL FROM:<a@b.org> REQUIRETLS=yes")
            assert value == "555 5.5.4 Unsupported option: REQUIRETLS=yes\r\n"
        await client.say("QUIT")
        await client.gone()

    serve(tmp_path, authority, talk, f"requiretls_enable = {'no' if hidden else 'yes'}")


@pytest.mark.parametrize(("key", "told"), [("127.0.0", True), ("192.0.2", False)])
def test_loglevel_of_a_client(
    tmp_path: Path, authority: Authority, key: str, *, told: bool
) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x")
        await client.starttls()
        await client.say("QUIT")
        await client.gone()
        lines = [line for line in instance.mail.log if "TLS connection established" in line]
        assert bool(lines) is told

    tables = f"smtpd_tls_loglevel_maps = inline:{{{key}=1}}"
    serve(tmp_path, authority, talk, "smtpd_tls_loglevel = 0", tables)


def test_requiretls_and_a_filter_that_knows_nothing_of_it(
    tmp_path: Path, authority: Authority
) -> None:
    """smtpd_proxy_filter: it comes back as a field of the header."""

    async def main() -> None:
        async with Filter() as filtering:

            async def talk(instance: Instance) -> None:
                client = Client(instance)
                await client.connect()
                await client.say("EHLO x")
                await client.starttls()
                await client.say("EHLO x", "MAIL FROM:<a@b.org> SIZE=10 requiretls")
                await client.say("RCPT TO:<alice@example.test>", "DATA", "Subject: x\r\n\r\n.")
                await client.say("QUIT")
                await client.gone()

            chain = authority.issue("mail.example.test").chain
            lines = [
                "smtpd_tls_security_level = may",
                f"smtpd_tls_chain_files = {chain}",
                f"smtpd_proxy_filter = 127.0.0.1:{filtering.port}",
                "",
            ]
            async with running(tmp_path, "\n".join(lines)) as instance:
                await asyncio.wait_for(talk(instance), 60)
            assert "MAIL FROM:<a@b.org> SIZE=10" in filtering.sessions[0]
            assert b"\r\nRequire-TLS-ESMTP: yes\r\nSubject: x\r\n" in filtering.contents[0]

    asyncio.run(main())


@pytest.mark.parametrize("later", [False, True])
def test_what_comes_behind_starttls_is_not_believed(
    tmp_path: Path, authority: Authority, later: bool
) -> None:
    """In the same packet it is forgotten; in one that comes later it is no handshake."""

    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x")
        if later:
            assert await client.say("STARTTLS") == "220 2.0.0 Ready to start TLS\r\n"
            client.writer.write(b"MAIL FROM:<evil@b.org>\r\n")
            assert (await client.reader.read())[:1] in (b"", b"\x15")
        else:
            client.writer.write(b"STARTTLS\r\nMAIL FROM:<evil@b.org>\r\n")
            assert await client.reply() == "220 2.0.0 Ready to start TLS\r\n"
            await client.secure()
            assert await client.say("RCPT TO:<alice@example.test>") == (
                "503 5.5.1 Error: need MAIL command\r\n"
            )
        await client.gone()

    serve(tmp_path, authority, talk, "smtpd_forbid_unauth_pipelining = no")


def test_what_was_said_before_is_forgotten(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x", "MAIL FROM:<a@b.org>", "RCPT TO:<alice@example.test>")
        await client.starttls()
        assert await client.say("DATA") == "503 5.5.1 Error: need RCPT command\r\n"
        await client.gone()
        assert instance.mail.aborted == 1

    serve(tmp_path, authority, talk)


def test_tls_at_once(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.open()
        await client.secure()
        assert await client.reply() == "220 mail.example.test ESMTP Postfix\r\n"
        assert "STARTTLS" not in await client.say("EHLO x")
        assert await client.say("MAIL FROM:<a@b.org>") == "250 2.1.0 Ok\r\n"
        await client.gone()

    serve(tmp_path, authority, talk, "smtpd_tls_wrappermode = yes")


def test_tls_at_once_behind_a_proxy(tmp_path: Path, authority: Authority) -> None:
    """The first octets of the handshake come with the line of the proxy."""

    async def talk(instance: Instance) -> None:
        reader, writer = await instance.connect()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(into, out)
        sent = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 465\r\n"
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(sent + out.read())
                sent = b""
                into.write(await reader.read(1 << 16))
        writer.write(out.read())
        greeting = b""
        while not greeting:
            try:
                greeting = tls.read()
            except ssl.SSLWantReadError:
                into.write(await reader.read(1 << 16))
        assert greeting == b"220 mail.example.test ESMTP Postfix\r\n"
        writer.close()
        await instance.runtime.session_over.wait()
        assert "connect from unknown[192.0.2.7]" in instance.mail.log

    serve(
        tmp_path,
        authority,
        talk,
        "smtpd_tls_wrappermode = yes",
        "smtpd_upstream_proxy_protocol = haproxy",
    )


@pytest.mark.parametrize("wrapped", ["yes", "no"])
def test_without_a_key_tls_is_not_available(
    tmp_path: Path, authority: Authority, wrapped: str
) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        greeting = await client.connect()
        assert any("no-such-file" in line for line in instance.mail.log)
        if wrapped == "yes":
            assert greeting == ""
            assert instance.mail.log[-2].startswith(
                "warning: Wrapper-mode request dropped from unknown[127.0.0.1] for service smtp."
            )
        else:
            assert "250-STARTTLS\r\n" in await client.say("EHLO x", "EHLO x")
            reply = await client.say("STARTTLS")
            assert reply == "454 4.7.0 TLS not available due to local problem\r\n"
            assert await client.say("MAIL FROM:<a@b.org>") == "250 2.1.0 Ok\r\n"
        await client.gone()

    lines = ("smtpd_tls_chain_files = /no-such-file", f"smtpd_tls_wrappermode = {wrapped}")
    serve(tmp_path, authority, talk, *lines)


def test_starttls_can_be_hidden(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        assert "STARTTLS" not in await client.say("EHLO x")
        assert await client.say("STARTTLS") == "502 5.5.1 Error: command not implemented\r\n"
        await client.gone()

    serve(tmp_path, authority, talk, "smtpd_discard_ehlo_keywords = starttls")


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (None, "No client certificate presented"),
        ("stranger", "Client certificate not trusted"),
        ("friend", ""),
    ],
)
def test_a_certificate_is_required(
    tmp_path: Path, authority: Authority, own: str | None, reason: str
) -> None:
    chains = {
        "friend": authority.issue("friend.example.test").chain,
        "stranger": authority.self_signed("stranger.example.test").chain,
    }

    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x")
        reply = ""
        try:
            await client.starttls(chains[own] if own else None)
            reply = await client.say("EHLO x")
        except OSError:
            assert reason  # the library may tell the client so in the handshake
        if not reason:
            assert reply.endswith("250-CHUNKING\r\n250 REQUIRETLS\r\n")
        elif reply:
            assert reply == f"421 4.7.1 mail.example.test Error: {reason}\r\n"
            shown = f"NOQUEUE: abort: TLS from unknown[127.0.0.1]: {reason}"
            assert shown in instance.mail.log
        await client.gone()

    serve(
        tmp_path,
        authority,
        talk,
        "smtpd_tls_security_level = encrypt",
        "smtpd_tls_req_ccert = yes",
        f"smtpd_tls_CAfile = {authority.certificate}",
    )


def test_name_without_a_chain_of_its_own(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x", "STARTTLS")
        await client.secure(server_hostname="Other.example.test")
        assert await client.say("QUIT") == "221 2.0.0 Bye\r\n"
        await client.gone()
        told = "TLS SNI other.example.test from unknown[127.0.0.1] not matched, using default chain"
        assert told in instance.mail.log

    chain = authority.issue("one.example.test").chain
    serve(tmp_path, authority, talk, f"tls_server_sni_maps = inline:{{one.example.test={chain}}}")


def test_loglevel_2(tmp_path: Path, authority: Authority) -> None:
    """The course of a handshake, what the certificate is, and no word of the end."""
    own = authority.self_signed("stranger.example.test").chain

    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x")
        await client.starttls(own)
        assert await client.say("QUIT") == "221 2.0.0 Bye\r\n"
        await client.gone()
        told = [line for line in instance.mail.log if "private/tlsmgr" not in line]
        peer = "unknown[127.0.0.1]"
        assert told[1] == f"setting up TLS connection from {peer}"
        assert f"{peer}: depth=0 verify=0 subject=/CN=stranger.example.test" in told
        assert told[-3].startswith(f"{peer}: subject_CN=stranger.example.test, issuer=stranger.")
        assert told[-2].startswith(f"Untrusted TLS connection established from {peer}: TLSv1.3")
        assert told[-1].startswith(f"disconnect from {peer}")

    serve(tmp_path, authority, talk, "smtpd_tls_loglevel = 2", "smtpd_tls_ask_ccert = yes")


@pytest.mark.parametrize("wrapped", [False, True])
def test_too_many_handshakes(
    tmp_path: Path, authority: Authority, wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(instance: Instance) -> None:
        seen = 0

        async def ask(_: object, event: str, *, only_report: bool = False) -> ClientCounts:
            nonlocal seen
            seen += event == "newtls" and not only_report
            return ClientCounts(0, 0, seen)

        monkeypatch.setattr(instance.server.rates._anvil, "ask", ask)
        for number in range(3):
            instance.runtime.session_over.clear()
            client = Client(instance)
            await client.open()
            if wrapped and number < 2:
                await client.secure()
            elif not wrapped:
                replies.append(await client.reply())
                client.writer.write(b"STARTTLS\r\n")
                replies.append(await client.reply())
                if number == 1:
                    await client.secure()
            if wrapped or number == 1:
                replies.append(await client.reply())
            await client.gone()

    replies: list[str] = []
    lines = ("smtpd_client_new_tls_session_rate_limit = 1", "smtpd_client_event_limit_exceptions =")
    serve(
        tmp_path, authority, talk, *lines, f"smtpd_tls_wrappermode = {'yes' if wrapped else 'no'}"
    )
    too_many = "Error: too many new TLS sessions from unknown[127.0.0.1]\r\n"
    exceeded = f"421 4.7.0 mail.example.test {too_many}"
    greeting, ready = "220 mail.example.test ESMTP Postfix\r\n", "220 2.0.0 Ready to start TLS\r\n"
    if wrapped:
        assert replies == [greeting, exceeded, ""]
    else:
        refused = f"454 4.7.0 {too_many}"
        assert replies == [greeting, ready, greeting, ready, exceeded, greeting, refused]


def test_a_client_that_shakes_hands_for_ever(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x", "STARTTLS")
        client.writer.write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        assert await client.reader.read() == b""
        await client.gone()
        assert instance.mail.log[-3:-1] == [
            "SSL_accept error from unknown[127.0.0.1]: Connection timed out",
            "NOQUEUE: lost connection after STARTTLS from unknown[127.0.0.1]",
        ]

    serve(tmp_path, authority, talk, "smtpd_starttls_timeout = 1s")


def test_the_system_stops_during_a_handshake(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        client = Client(instance)
        await client.connect()
        await client.say("EHLO x", "STARTTLS")
        client.writer.write(b"\x16\x03\x01\x02\x00\x01")
        await asyncio.sleep(0)
        instance.runtime.stopping.set()
        assert await client.reader.read() == b""
        await client.gone()

    serve(tmp_path, authority, talk)


def test_clients_that_break_off_leave_nothing_behind(tmp_path: Path, authority: Authority) -> None:
    async def talk(instance: Instance) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            context.wrap_bio(into, out).do_handshake()
        except ssl.SSLWantReadError:
            pass
        hello = out.read()
        before = len(os.listdir("/proc/self/fd"))
        for cut in (0, 1, 5, 50, len(hello) - 1, len(hello)):
            client = Client(instance)
            await client.connect()
            await client.say("EHLO x", "STARTTLS")
            instance.runtime.session_over.clear()
            client.writer.write(hello[:cut])
            client.writer.transport.abort()
            await client.gone()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        ended = "NOQUEUE: lost connection after STARTTLS from unknown[127.0.0.1]"
        assert instance.mail.log.count(ended) == 6

    serve(tmp_path, authority, talk)


def test_a_bogus_level_is_fatal(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"{MAIN_CF}smtpd_tls_security_level = bogus\n")
    with pytest.raises(Fatal, match='Invalid TLS level "bogus"'):
        open_tables(open_config(str(tmp_path)))
