"""The connection to Dovecot: shared by requests, replaced when lost, never a wrong answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from libmail.clients.dovecot import DovecotConnection, DovecotServer
from libmail.log import LOG
from libmail.sasl.server import AuthContext, Challenge, Failure, Success
from tests.unit.libmail.sasl.test_dovecot import GREETING

CONTEXT = AuthContext("smtp", "192.0.2.1", "", "", "")


@pytest.fixture
def warnings() -> list[str]:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtpd")
    return logged


def server(path: Path) -> DovecotServer:
    async def connect(factory: Callable[[], DovecotConnection]) -> DovecotConnection:
        loop = asyncio.get_running_loop()
        return (await loop.create_unix_connection(factory, str(path)))[1]

    return DovecotServer("private/auth", connect)


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """PLAIN succeeds at once, LOGIN asks, DIE ends the server."""
    writer.write(GREETING)
    while line := (await reader.readline()).decode().rstrip("\n"):
        name, *fields = line.split("\t")
        if name == "AUTH" and fields[1] == "PLAIN":
            writer.write(f"OK\t{fields[0]}\tuser=u{fields[0]}\n".encode())
        elif name == "AUTH" and fields[1] == "LOGIN":
            writer.write(f"CONT\t{fields[0]}\tVXNlcg==\n".encode())
        elif name == "CONT":
            writer.write(f"FAIL\t{fields[0]}\treason=no\n".encode())
        elif name == "AUTH":
            break
    writer.close()
    await writer.wait_closed()


async def requests(path: Path) -> None:
    serving: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(answers(reader, writer)))

    listener = await asyncio.start_unix_server(accept, str(path))
    sasl = server(path)
    offered = await asyncio.gather(sasl.mechanisms(), sasl.mechanisms())
    assert [one.name for one in offered[0]] == ["PLAIN", "CRAM-MD5"]
    both = await asyncio.gather(
        sasl.begin("PLAIN", b"", CONTEXT), sasl.begin("LOGIN", None, CONTEXT)
    )
    assert both[0][1] == Success("u1")
    exchange, step = both[1]
    assert step == Challenge(b"User")
    assert await exchange.step(b"me") == Failure("no")
    _, step = await sasl.begin("DIE", None, CONTEXT)
    assert isinstance(step, Failure)
    assert step.temporary
    assert (await sasl.begin("PLAIN", b"", CONTEXT))[1] == Success("u1")  # a new connection
    sasl.close()
    listener.close()
    await asyncio.gather(*serving)


def test_requests(short_tmp: Path) -> None:
    asyncio.run(requests(short_tmp / "auth"))


def test_nobody_there(short_tmp: Path, warnings: list[str]) -> None:
    async def ask() -> None:
        sasl = server(short_tmp / "auth")
        assert await sasl.mechanisms() == ()
        _, step = await sasl.begin("PLAIN", b"", CONTEXT)
        assert isinstance(step, Failure)
        assert step.temporary

    asyncio.run(ask())
    where = "Dovecot auth socket 'private/auth'"
    text = f"warning: SASL: Connect to {where} failed: No such file or directory"
    assert warnings == [text, text]
