"""smtp-source, qmqp-source: what they send, and what they make of the answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from commands import qmqp_source
from commands.smtp_source import _LETTERS
from commands.smtp_source.message import Messages
from commands.smtp_source.session import Session
from libmail.load.command_line import parse
from libmail.load.traffic import Traffic, read_plan
from libmail.log import Fatal

TO = ("-M", "me.test")
ENVELOPE = b"MAIL FROM:<foo@me.test>\r\nRCPT TO:<foo@me.test>\r\nDATA\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes] = []
        self.closed = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self

    def fileno(self) -> int:
        return 7

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.said.append(data)

    def close(self) -> None:
        self.closed = True


def dialogue(*options: str, replies: list[bytes]) -> tuple[list[bytes], str]:
    """What is said to a server that replies so, and how it ended: "", "open", or what is wrong."""
    transport = FakeTransport()

    async def run() -> str:
        parsed = parse([*TO, *options, "host"], _LETTERS, 1)
        plan = read_plan(parsed, "host", "smtp")
        messages = Messages(plan, parsed)
        session = Session(Traffic(plan, lambda mine: Session(mine, messages)), messages)
        session.connection_made(transport)
        for reply in replies:
            session.data_received(reply)
        if not transport.closed:
            return "open"
        session.connection_lost(None)
        try:
            await session.over
        except Fatal as err:
            return str(err)
        return ""

    return transport.said, asyncio.run(run())


def test_a_session() -> None:
    go_on, ok = b"354 go\r\n", b"250 ok\r\n"
    replies = [b"220-x\r\n220 y", b"\r\n", ok, ok, ok, go_on, ok, b"221 bye\r\n"]
    said, end = dialogue(replies=replies)
    assert end == ""
    assert said[0] == b"HELO me.test\r\n"
    assert b"".join(said[1:4]) == ENVELOPE
    assert said[4].startswith(b"From: <foo@me.test>\r\nTo: <foo@me.test>\r\nDate: ")
    assert said[4].endswith(b"\r\n\r\n" + b"".join(
        [b"La de da de da %d.\r\n" % number for number in (1, 2, 3, 4)]) + b".\r\n")  # fmt: skip
    assert said[5:] == [b"QUIT\r\n"]


def test_connections_are_kept() -> None:
    replies = [b"220 x\r\n", *[b"250 ok\r\n", b"250 ok\r\n", b"354 ok\r\n", b"250 ok\r\n"] * 2]
    said, end = dialogue("-d", "-o", "-m", "2", replies=[*replies, b"221 ok\r\n"])
    assert (end, said.count(b"DATA\r\n"), said[-1]) == ("", 2, b"QUIT\r\n")


def test_every_recipient_of_lmtp_is_answered_for() -> None:
    ok, no = b"250 ok\r\n", b"450 no\r\n"
    replies = [b"220 x\r\n", ok, ok, ok, no, ok, b"354 ok\r\n", ok + ok]
    said, end = dialogue("-L", "-A", "-r", "3", replies=[*replies, b"221 x\r\n"])
    assert end == ""
    assert said[0] == b"LHLO me.test\r\n"
    assert said[2:5] == [b"RCPT TO:<%sfoo@me.test>\r\n" % n for n in (b"3", b"2", b"")]
    assert dialogue("-L", "-A", "-r", "3", replies=[*replies[:-1], ok])[1] == "open"


def test_a_refusal_ends_it() -> None:
    said, end = dialogue(replies=[b"220 x\r\n", b"250 x\r\n", b"450 4.1.8 no\r\n"])
    assert end == "sender rejected: 450 4.1.8 no"
    assert said[-1] == b"MAIL FROM:<foo@me.test>\r\n"
    assert dialogue(replies=[b"421 x\r\n"])[1] == "connection rejected: 421 x"
    assert dialogue(replies=[b"220 " + b"x" * 70_000])[1] == "the server's reply is too long"


def test_numbers_that_no_other_recipient_has() -> None:
    ok = b"250 ok\r\n"
    said, _ = dialogue("-N", "-r", "2", replies=[b"220 x\r\n", ok, ok, ok, ok])
    assert said[2:4] == [b"RCPT TO:<1foo@me.test>\r\n", b"RCPT TO:<2foo@me.test>\r\n"]


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b".a\n\nb", b"..a\r\n\r\nb\r\n.\r\n"),
        (b"", b".\r\n"),
        (b"a\n.\n", b"a\r\n..\r\n.\r\n"),
    ],
)
def test_a_file(tmp_path: Path, text: bytes, wire: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    parsed = parse([*TO, "-F", str(tmp_path / "file"), "host"], _LETTERS, 1)
    assert Messages(read_plan(parsed, "host", "smtp"), parsed).content(1, 2) == wire


@pytest.mark.parametrize("length", [0, 2, 79, 80, 81, 82, 160, 4097])
def test_payloads_have_their_length(length: int) -> None:
    parsed = parse([*TO, "-o", "-l", str(length), "host"], _LETTERS, 1)
    content = Messages(read_plan(parsed, "host", "smtp"), parsed).content(1, 2)
    assert len(content) == length + len(b".\r\n")


@pytest.mark.parametrize("length", [0, 10, 200, 5000])
def test_messages_of_qmqp_have_their_length(length: int) -> None:
    plan = read_plan(parse([*TO, "-l", str(length), "h"], "M:l:", 1), "h", "628")
    assert len(qmqp_source.content(plan)) == length


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("host", ("", "host", "smtp")),
        ("inet:host:26", ("", "host", "26")),
        ("inet:[::1]:26", ("", "::1", "26")),
        ("[::1]", ("", "::1", "smtp")),
        ("unix:/a:b", ("/a:b", "", "")),
    ],
)
def test_servers(where: str, found: tuple[str, str, str]) -> None:
    plan = read_plan(parse([where], "", 1), where, "smtp")
    assert (plan.path, plan.host, plan.service) == found


def test_options_that_make_no_sense() -> None:
    for options in (["-m", "0"], ["-s", "x"], ["-R", "1", "-w", "1"]):
        with pytest.raises(Fatal):
            read_plan(parse([*options, "host"], _LETTERS, 1), "host", "smtp")
