"""Clients that postscreen hands over within a session."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from tests.unit.daemons.smtpd.fakes import Instance, running

SAID = ("EHLO c.test", "MAIL FROM:<a@b.org> SIZE=100", "RCPT TO:<alice@example.test>")
CONTENT = b"Subject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n"
Talk = Callable[[Instance], Coroutine[object, object, None]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def play(folder: Path, main_cf: str, talk: Talk) -> list[str]:
    """The log of a session."""

    async def run() -> list[str]:
        async with running(folder, main_cf) as instance:
            async with asyncio.timeout(60):
                await talk(instance)
                await instance.runtime.session_over.wait()
            return instance.mail.log

    return asyncio.run(run())


async def replies(instance: Instance, lines: str, *said: str) -> list[str]:
    """What the client gets that was handed over after having said this, and says these lines."""
    reader, writer = await instance.take_over(*said)
    found = []
    for line in ("", *lines.splitlines(keepends=True)):
        writer.write(line.replace("\n", "\r\n").encode())
        found.append((await reader.readline()).decode().rstrip())
    writer.close()
    return found


def test_the_session_goes_on(tmp_path: Path) -> None:
    async def talk(instance: Instance) -> None:
        reader, writer = await instance.take_over(*SAID)
        assert await reader.readline() == b"250 2.1.5 Ok\r\n"
        writer.write(b"RCPT TO:<bob@example.test>\r\nDATA\r\n")
        assert await reader.readline() == b"250 2.1.5 Ok\r\n"
        assert await reader.readline() == b"354 End data with <CR><LF>.<CR><LF>\r\n"
        writer.write(CONTENT)
        rest = await reader.read()
        assert rest == b"250 2.0.0 Ok: queued as QID1\r\n221 2.0.0 Bye\r\n"
        writer.close()
        (message,) = instance.mail.messages
        assert message.recipients == ["alice@example.test", "bob@example.test"]
        assert message.envelope.sender == "a@b.org"
        assert message.content.startswith(b"Received: from c.test (unknown [192.0.2.9])\r\n")

    log = play(tmp_path, "", talk)
    assert log[0] == "connect from unknown[192.0.2.9]"
    counts = "ehlo=1 mail=1 rcpt=2 data=1 quit=1 commands=6"
    assert log[-1] == f"disconnect from unknown[192.0.2.9] {counts}"


AFTERWARDS = "RCPT TO:<bob@example.test>\nRSET\nRCPT TO:<x@example.test>\nQUIT\n"


@pytest.mark.parametrize(
    ("settings", "refusal", "where", "after"),
    [
        (
            "smtpd_sender_restrictions = check_sender_access inline:{{ a@b.org = 451 later }}\n",
            "451 4.7.1 <a@b.org>: Sender address rejected: later",
            "MAIL",
            ["250 2.0.0 Ok", "503 5.5.1 Error: need MAIL command"],
        ),
        (
            "smtpd_helo_restrictions = check_helo_access inline:{{ c.test = 450 later }}\n",
            "450 4.7.1 <c.test>: Helo command rejected: later",
            "EHLO",
            ["250 2.0.0 Ok", "503 5.5.1 Error: need MAIL command"],
        ),
        (
            "smtpd_client_restrictions = check_client_access inline:{{ 192.0.2.9 = 450 later }}\n",
            "450 4.7.1 <unknown[192.0.2.9]>: Client host rejected: later",
            "CONNECT",
            ["450 4.7.1 <unknown[192.0.2.9]>: Client host rejected: later"] * 2,
        ),
    ],
    ids=["MAIL", "EHLO", "CONNECT"],
)
def test_what_was_refused_is_told_to_each_recipient(
    tmp_path: Path, settings: str, refusal: str, where: str, after: list[str]
) -> None:
    async def talk(instance: Instance) -> None:
        found = await replies(instance, AFTERWARDS, *SAID)
        assert found == [refusal, refusal, *after, "221 2.0.0 Bye"]
        assert instance.mail.messages == []

    log = play(tmp_path, f"smtpd_delay_reject = no\n{settings}", talk)
    assert sum(f"reject: {where} from unknown[192.0.2.9]: {refusal}" in line for line in log) == 1


@pytest.mark.parametrize("what", ["client", "helo", "sender"])
def test_a_refusal_may_end_the_session(tmp_path: Path, what: str) -> None:
    async def talk(instance: Instance) -> None:
        reader, writer = await instance.take_over(*SAID)
        found = await reader.read()
        assert found.startswith(b"421 4.7.1 ")
        assert found.count(b"\n") == 1
        writer.close()

    key = {"client": "192.0.2.9", "helo": "c.test", "sender": "a@b.org"}[what]
    play(
        tmp_path,
        "smtpd_delay_reject = no\n"
        f"smtpd_{what}_restrictions = check_{what}_access inline:{{{{ {key} = 421 bye }}}}\n",
        talk,
    )


def test_recipients_are_judged_as_ever(tmp_path: Path) -> None:
    async def talk(instance: Instance) -> None:
        found = await replies(instance, "RCPT TO:<alice@example.test>\nQUIT\n", *SAID[:2],
                              "RCPT TO:<x@elsewhere.test>")  # fmt: skip
        assert found[0].startswith("554 5.7.1 <x@elsewhere.test>: ")
        assert found[1:] == ["250 2.1.5 Ok", "221 2.0.0 Bye"]

    restricted = "smtpd_relay_restrictions = reject_unauth_destination\n"
    play(tmp_path, restricted, talk)
