"""A connection to a Milter: events and answers over a socket, and what happens when it fails."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from libmail.clients.milter import MilterLink, default_decision
from libmail.log import LOG
from libmail.milter.conversation import PASS, Act, Decision, Event
from libmail.milter.protocol import AddHeader, Command, Edit, Stage, Steps
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
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def packet(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    return await reader.readexactly(length)


async def linked(script: Script, steps: int = 0) -> tuple[MilterLink, asyncio.Task[None]]:
    """An open link whose Milter negotiates Steps, and then follows the script."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def milter() -> None:
        reader, writer = await asyncio.open_connection(sock=theirs)
        assert (await packet(reader))[:1] == b"O"
        writer.write(wire("O", struct.pack(">III", 6, 1, steps)))
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
    assert other.asked[Stage.END_OF_MESSAGE] == "j"
    assert await other.event(Command.BODY, b"hello") is PASS
    other.close(goodbye=False)
    link.close(goodbye=False)
    await milter


FIELDS: list[Event] = [(Command.HEADER, b"%d\0v\0" % n, b"i\0Q\0") for n in range(3)]
REST: list[Event] = [
    (Command.END_OF_HEADER, b"", None), (Command.BODY, b"a" * (1 << 16), None),
    (Command.BODY, b"b" * (1 << 21), None),  # more than a socket takes at once
]  # fmt: skip


async def heard_by(answers: dict[int, bytes], steps: int = 0) -> tuple[list[bytes], Decision]:
    """What a Milter hears of a message, and the decision. answers: to the n-th event; "c" else."""
    heard: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (event := await packet(reader))[:1] not in (b"Q", b"A"):
            heard.append(event[:2])
            silent = event[:1] == b"D" or (event[:1] == b"L" and steps)
            if not silent:
                said = [one for one in heard if one[:1] != b"D"]
                writer.write(answers.get(len(said), wire("c")))

    link, milter = await linked(script, steps)
    decision = await link.events([*FIELDS, *REST])
    if decision is PASS:
        decision = await link.event(Command.END_OF_BODY)
    link.close()
    await milter
    return heard, decision


WITH_MACROS = [b"DL", b"L0", b"DL", b"L1", b"DL", b"L2"]
REJECTED = Decision(Act.REFUSE, Reply(550, "5.7.1", "Command rejected"))


@pytest.mark.parametrize(
    ("answers", "steps", "heard", "decision"),
    [
        ({}, 0, [*WITH_MACROS, b"N", b"Ba", b"Bb", b"E"], PASS),
        ({}, int(Steps.NO_REPLY_HEADER), [*WITH_MACROS, b"N", b"Ba", b"Bb", b"E"], PASS),
        ({2: wire("p") + wire("c")}, 0, [*WITH_MACROS, b"N", b"Ba", b"Bb", b"E"], PASS),
        ({2: wire("s")}, 0, [*WITH_MACROS[:4], b"N", b"Ba", b"Bb", b"E"], PASS),
        ({5: wire("s")}, 0, [*WITH_MACROS, b"N", b"Ba", b"E"], PASS),
        ({2: wire("a")}, 0, WITH_MACROS[:4], PASS),
        ({3: wire("r")}, 0, WITH_MACROS, REJECTED),
        ({6: wire("r")}, 0, [*WITH_MACROS, b"N", b"Ba", b"Bb"], REJECTED),
    ],
)
def test_a_series(
    answers: dict[int, bytes], steps: int, heard: list[bytes], decision: Decision
) -> None:
    assert asyncio.run(heard_by(answers, steps)) == (heard, decision)


async def stops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in FIELDS:
        await packet(reader)
        await packet(reader)
        writer.write(wire("c"))
    assert await packet(reader) == b"N"


async def _stopping() -> None:
    link, milter = await linked(stops)
    assert await link.events([*FIELDS, *REST]) == TEMPFAIL
    await milter


def test_the_event_at_which_a_milter_stops_is_named(warnings: list[str]) -> None:
    asyncio.run(_stopping())
    text = "milter inet:h:1: can't read SMFIC_EOH reply packet header: Application error"
    assert warnings == [f"warning: {text}"]


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
