"""A connection to a Milter: events and answers over a socket, and what happens when it fails."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from libmail.clients.milter import MilterLink, default_decision
from libmail.log import LOG
from libmail.milter.conversation import PASS, Act, Decision
from libmail.milter.protocol import AddHeader, Command, Edit, Stage
from libmail.milter.settings import MilterSettings
from libmail.smtp.reply import Reply
from tests.unit.libmail.milter.test_protocol import wire


@pytest.fixture
def warnings() -> list[str]:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtpd")
    return logged


SETTINGS = MilterSettings("inet:h:1", 30, 30, 300, "tempfail", "6")
TEMPFAIL = Decision(Act.REFUSE, Reply(451, "4.7.1", "Service unavailable - try again later"))
NEGOTIATED = wire("O", struct.pack(">III", 6, 1, 0))
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def packet(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    return await reader.readexactly(length)


async def linked(script: Script) -> tuple[MilterLink, asyncio.Task[None]]:
    """An open link whose Milter follows the script after the negotiation."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def milter() -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)
        assert (await packet(reader))[:1] == b"O"
        writer.write(NEGOTIATED)
        await script(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def connect() -> socket.socket:
        return ours

    link = MilterLink(SETTINGS)
    task = asyncio.create_task(milter())
    await link.open(connect)
    return link, task


async def accepts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await packet(reader) == b"DEi\0Q\0"
    assert await packet(reader) == b"E"
    writer.write(wire("h", b"X\0y\0") + wire("c"))
    assert await packet(reader) == b"A"
    assert await packet(reader) == b"Q"


def test_changes_and_decision() -> None:
    asyncio.run(_changes())


async def _changes() -> None:
    link, milter = await linked(accepts)
    edits: list[Edit] = []
    assert await link.event(Command.END_OF_BODY, b"", b"i\0Q\0", edits.append) is PASS
    assert edits == [AddHeader(b"X", b"y")]
    link.abort()
    link.close()
    await milter


async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)


async def lies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await packet(reader)
    writer.write(wire("h", b"X\0y\0"))


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (dies, "milter inet:h:1: can't read SMFIC_HELO reply packet header: Application error"),
        (lies, "milter inet:h:1: unexpected filter response SMFIR_ADDHEADER after event"),
    ],
)
def test_a_failing_milter_is_its_default_action(
    script: Script, text: str, warnings: list[str]
) -> None:
    asyncio.run(_failing(script))
    assert [line for line in warnings if text in line]


async def _failing(script: Script) -> None:
    link, milter = await linked(script)
    assert await link.event(Command.HELO, b"x\0") == TEMPFAIL
    assert await link.event(Command.MAIL, b"<>\0") == TEMPFAIL
    assert not link.hand_over("", "").state.connected
    await milter


def test_nobody_there(warnings: list[str]) -> None:
    asyncio.run(_nobody())
    assert warnings == ["warning: connect to Milter service inet:h:1: Connection refused"]


async def _nobody() -> None:
    async def connect() -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    link = MilterLink(SETTINGS)
    await link.open(connect)
    assert not link.wants(Command.MAIL)
    assert await link.event(Command.MAIL, b"<>\0") == TEMPFAIL


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await packet(reader) == b"M<>\0"
    writer.write(wire("c"))
    assert await packet(reader) == b"Bhello"
    writer.write(wire("c"))


def test_another_process_goes_on() -> None:
    asyncio.run(_handed_over())


async def _handed_over() -> None:
    link, milter = await linked(half)
    assert await link.event(Command.MAIL, b"<>\0") is PASS
    state, sock = link.hand_over("i", "j")
    assert sock is not None
    other = MilterLink.resumed(state, sock.dup())
    assert other.macros(Stage.END_OF_MESSAGE, "x") == "j"
    assert await other.event(Command.BODY, b"hello") is PASS
    other.close(goodbye=False)
    link.close(goodbye=False)
    await milter


@pytest.mark.parametrize(
    ("action", "want"),
    [
        ("accept", PASS),
        (
            "nonsense",
            Decision(
                Act.REFUSE, Reply(451, "4.3.5", "Server configuration problem - try again later")
            ),
        ),
        ("550 5.7.1 no", Decision(Act.REFUSE, Reply(550, "5.7.1", "no"))),
        ("421 4.3.2 later", Decision(Act.DISCONNECT, Reply(421, "4.3.2", "later"))),
    ],
)
def test_default_actions(action: str, want: Decision) -> None:
    assert default_decision(action) == want
