"""smtp-sink: what its options make of a dialogue, in whatever pieces it comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from commands.smtp_sink import main
from commands.smtp_sink.counters import Counters
from commands.smtp_sink.server import Server
from commands.smtp_sink.session import Session
from commands.smtp_sink.settings import LETTERS, read_settings
from libmail.load.command_line import parse
from libmail.log import Fatal

GREETING = b"220 smtp-sink ESMTP\r\n"
MAIL = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
TAKEN = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
GO_ON = b"354 End data with <CR><LF>.<CR><LF>\r\n"
OK = b"250 2.0.0 Ok\r\n"
SOFT, HARD = b"450 4.3.0 Error: command failed\r\n", b"500 5.3.0 Error: command failed\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.closed = False
        self.readable = asyncio.Event()
        self.readable.set()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("192.0.2.1", 1234) if name == "peername" else default

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.said += data

    def close(self) -> None:
        self.closed = True
        self.readable.set()

    def pause_reading(self) -> None:
        self.readable.clear()

    def resume_reading(self) -> None:
        self.readable.set()


class FakeListener:
    """Counts sessions that are over."""

    over = 0

    def session_over(self) -> None:
        self.over += 1


def talk(*options: str, said: bytes, piece: int = 1 << 20) -> FakeTransport:
    """What a client hears that says this."""
    transport, listener = FakeTransport(), FakeListener()

    async def run() -> None:
        settings = read_settings(parse([*options, "where", "9"], LETTERS, 2))
        session = Session(Server(settings, Counters(settings), []), listener)  # type: ignore[arg-type]
        session.connection_made(transport)
        for at in range(0, len(said), piece):
            while not transport.readable.is_set():
                await transport.readable.wait()
            session.data_received(said[at : at + piece])
        while not transport.readable.is_set():
            await transport.readable.wait()
        session.connection_lost(None)

    asyncio.run(run())
    assert listener.over == 1
    return transport


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_message_is_kept(tmp_path: Path, piece: int) -> None:
    content = b"Subject: x\r\n\r\n..\r\nx.\r\n.x\r\n.\r\n"
    said = b"EHLO me\r\n" + MAIL + b"DATA\r\n" + content + b"QUIT\r\n"
    heard = talk("-d", f"{tmp_path}/new/x", "-S", r"start\n", said=said, piece=piece)
    assert heard.said.startswith(GREETING + b"250-smtp-sink\r\n250-PIPELINING\r\n")
    assert heard.said.endswith(b"250 \r\n" + TAKEN + GO_ON + OK + b"221 Bye\r\n")
    assert heard.closed
    (file,) = (tmp_path / "new").iterdir()
    head, _, rest = file.read_bytes().partition(b"\nReceived: from me ([192.0.2.1])\n")
    assert head.decode() == (
        "start\nX-Client-Addr: 192.0.2.1\nX-Client-Proto: ESMTP\nX-Helo-Args: me\n"
        "X-Mail-Args: <a@b.test>\nX-Rcpt-Args: <c@d.test>"
    )
    assert rest.endswith(b"\nSubject: x\n\n.\nx.\nx\n\n")


def test_messages_in_one_file(tmp_path: Path) -> None:
    once = MAIL + b"DATA\r\nx\r\n.\r\n"
    heard = talk("-D", f"{tmp_path}/all", said=once + once)
    assert heard.said == GREETING + (TAKEN + GO_ON + OK) * 2
    assert (tmp_path / "all").read_bytes().count(b"X-Mail-Args: ") == 2


def test_content_may_be_nothing() -> None:
    assert talk(said=MAIL + b"DATA\r\n.\r\n").said == GREETING + TAKEN + GO_ON + OK


@pytest.mark.parametrize(
    ("options", "said", "heard"),
    [
        (["-f", "mail"], b"MAIL FROM:<>\r\n", GREETING + HARD),
        (["-r", "mail,noop"], b"MAIL FROM:<>\r\nNOOP\r\n", GREETING + SOFT * 2),
        (["-r", "mail", "-b", "451 no"], b"MAIL FROM:<>\r\n", GREETING + b"451 no\r\n"),
        (["-f", "connect"], b"NOOP\r\n", HARD + OK),
        (["-r", "."], MAIL + b"DATA\r\n.\r\n" + MAIL, GREETING + TAKEN + GO_ON + SOFT + TAKEN),
        (["-q", "connect"], b"", b""),
        (["-q", "noop"], b"NOOP\r\nNOOP\r\n", GREETING),
        (["-Q", "noop"], b"NOOP\r\n", GREETING + b"421 4.0.0 Server closing connection\r\n"),
        (["-e"], b"EHLO x\r\n", b"220 smtp-sink\r\n500 5.5.1 Error: unknown command\r\n"),
        (["-P"], b"HELO x\r\n", b"220 ********\r\n250 smtp-sink\r\n"),
        (["-h", "me", "-8aCEFNp"], b"EHLO x\r\n", b"220 me ESMTP\r\n250-me\r\n250 \r\n"),
        (["-L"], b"EHLO x\r\n", GREETING + b"500 5.5.1 Error: unknown command\r\n"),
        (
            ["-L"],
            MAIL + b"RCPT TO:<e@f.test>\r\nDATA\r\n.\r\n",
            GREETING + TAKEN + b"250 2.1.5 Ok\r\n" + GO_ON + b"250 2.2.0 Ok\r\n" * 2,
        ),
        (["-A", "0"], MAIL + b"DATA\r\n", GREETING + TAKEN + GO_ON + b"550 This violates SMTP\r\n"),
        (["-W", "noop:0:50"], b"NOOP\r\nNOOP\r\n", GREETING + OK * 2),
        (["-w", "0", "-H", "0"], MAIL + b"DATA\r\n.\r\n", GREETING + TAKEN + GO_ON + OK),
        ([], b"MAIL a\r\nMAIL b\r\n", GREETING + b"250 2.1.0 Ok\r\n503 5.5.1 Error: nested MAIL"
         b" command\r\n"),
        ([], b"DATA\r\n", GREETING + b"503 5.5.1 Error: need RCPT command\r\n"),
        ([], b"x" * 70_000, GREETING),
    ],
)  # fmt: skip
def test_dialogues(options: list[str], said: bytes, heard: bytes) -> None:
    assert talk(*options, said=said).said == heard


@pytest.mark.parametrize(
    "options", [["-f", "bogus"], ["-W", "mail:x"], ["-W", "mail:1:100"], ["-b", "ok"], ["-m", "0"]]
)
def test_options_that_make_no_sense(options: list[str]) -> None:
    with pytest.raises(Fatal):
        read_settings(parse([*options, "where", "9"], LETTERS, 2))


def test_without_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "usage: smtp-sink" in capsys.readouterr().err
