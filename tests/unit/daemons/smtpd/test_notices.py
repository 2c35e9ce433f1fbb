"""notify_classes: which errors of a session belong to which class."""

import asyncio
from pathlib import Path

import pytest

from tests.unit.daemons.smtpd.fakes import running

CASES = [
    ("FOO", "protocol"),
    ("MAIL FROM:<a", "protocol"),
    ("EHLO", "protocol"),
    ("RCPT TO:<a@b>", "protocol"),
    ("AUTH PLAIN", "protocol"),
    ("MAIL FROM:<a@example.org> SIZE=2000000000", "policy"),
    ("MAIL FROM:<a@example.org> SIZE=99999999999999999999", "policy"),
    ("VRFY alice", "policy"),
    ("XCLIENT NAME=x", "policy"),
    ("MAIL FROM:<rejected@example.org>", "policy"),
    ("MAIL FROM:<warned@example.org>", "policy"),
    ("MAIL FROM:<mistake@example.org>", "software"),
    ("MAIL FROM:<warned-mistake@example.org>", "software"),
    ("MAIL FROM:<unlisted@example.test>", "bounce"),
    ("MAIL FROM:<down@relayed.test>", "data"),
    ("QUIT", ""),
]
MAIN = """
notify_classes = {name}
disable_vrfy_command = yes
smtpd_delay_reject = no
relay_recipient_maps = socketmap:unix:/nonexistent:x
smtpd_restriction_classes = warned, mistake
warned = warn_if_reject reject
mistake = warn_if_reject no_such_restriction
smtpd_sender_restrictions = check_sender_access inline:{{
    {{rejected@example.org=REJECT}}, {{warned@example.org=warned}},
    {{mistake@example.org=no_such}}, {{warned-mistake@example.org=mistake}} }},
    reject_unlisted_sender
"""


async def _notices(folder: Path, name: str, command: str) -> int:
    async with running(folder, MAIN.format(name=name)) as instance:
        reader, writer = await instance.connect()
        for line in (command, "QUIT", ""):
            await asyncio.wait_for(reader.readline(), 60)
            writer.write(f"{line}\r\n".encode())
        writer.close()
        async with asyncio.timeout(60):
            await instance.runtime.session_over.wait()
        return len(instance.mail.messages)


@pytest.mark.parametrize("name", ["bounce", "data", "policy", "protocol", "software"])
@pytest.mark.parametrize(("command", "error_class"), CASES)
def test_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str, error_class: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert asyncio.run(_notices(tmp_path, name, command)) == (name == error_class)


def test_the_transcript_begins_with_the_client_that_xclient_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = "notify_classes = protocol\nsmtpd_authorized_xclient_hosts = 127.0.0.1\n"

    async def talk() -> bytes:
        async with running(tmp_path, settings) as instance:
            reader, writer = await instance.connect()
            for line in ("XCLIENT ADDR=192.0.2.7 NAME=a.test", "DATA", "QUIT", ""):
                await asyncio.wait_for(reader.readline(), 60)
                writer.write(f"{line}\r\n".encode())
            writer.close()
            async with asyncio.timeout(60):
                await instance.runtime.session_over.wait()
            (message,) = instance.mail.messages
            return message.content

    lines = asyncio.run(talk()).split(b"\r\n")
    start = lines.index(b" Out: 220 mail.example.test ESMTP Postfix")
    assert lines[start + 1] == b" In:  DATA"
