"""Plays the files of tests/dialog."""

import asyncio
import codecs
from pathlib import Path

import pytest

from tests.unit.daemons.smtpd.fakes import Instance, running

DIALOGS = sorted((Path(__file__).parents[3] / "dialog").glob("*.smtp"))
LIMIT = 60.0


def unescape(text: str) -> bytes:
    return codecs.decode(text, "unicode_escape").encode("latin-1")


class Player:
    """One dialogue as its client sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.unsent = b""

    async def step(self, kind: str, text: str) -> None:
        if kind == "C:":
            self.unsent += text.encode() + b"\r\n"
        elif kind == "C>":
            self.unsent += unescape(text)
        else:
            self.flush()
            line = await asyncio.wait_for(self.reader.readline(), LIMIT)
            assert line.decode() == ("" if kind == "S!" else f"{text}\r\n")

    def flush(self) -> None:
        self.writer.write(self.unsent)
        self.unsent = b""


def check(kind: str, text: str, instance: Instance) -> None:
    mail = instance.mail
    if kind == "L:":
        assert text in mail.log
    elif kind == "N:":
        text, _, number = text.rpartition(" ")
        assert sum(text in line for line in mail.log) == int(number)
    elif kind == "A:":
        amendment = mail.messages[-1].amendment
        assert amendment is not None
        bcc = [recipient.address for recipient in amendment.recipients]
        flags = str(amendment.cleanup_flags)
        assert [flags, amendment.content_filter, amendment.redirect, *bcc] == text.split()
    elif kind == "M:":
        sender, *recipients = text.split()
        message = mail.messages[-1]
        assert (message.envelope.sender or "<>", message.recipients) == (sender, recipients)
    else:
        _, _, content = mail.messages[-1].content.partition(b"+0000 (UTC)\r\n")
        assert content == unescape(text)


async def play(path: Path, folder: Path) -> None:
    lines = [line for line in path.read_text().split("\n") if line and line[0] != "#"]
    steps = [(line[:2], line[2:].removeprefix(" ")) for line in lines]
    settings = [line.removeprefix("main:").strip() for line in lines if line.startswith("main:")]
    async with running(folder, "\n".join(settings) + "\n") as instance:
        reader, writer = await instance.connect()
        player = Player(reader, writer)
        for kind, text in steps:
            if kind in ("C:", "C>", "S:", "S!"):
                await player.step(kind, text)
        player.flush()
        writer.close()
        async with asyncio.timeout(LIMIT):
            await instance.runtime.session_over.wait()
        for kind, text in steps:
            if kind in ("L:", "N:", "A:", "M:", "D:"):
                check(kind, text, instance)


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    asyncio.run(play(path, tmp_path))
