"""Policy servers: kept connections, servers that fail, answer late, lie or come back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from libmail.clients.policy import PolicyConnection, PolicyServer
from libmail.log import LOG
from libmail.lookup.policies import PolicySettings

SETTINGS = PolicySettings("unix:policy", 30, 300, 1000, 0, 2, 0.0, "451 4.3.5 later", "")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def warnings() -> list[str]:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtpd")
    return logged


class Policy:
    """A policy server; answers: bytes for each request, None to hang up, in their order; then
    "action=connection number"."""

    def __init__(self, path: Path, answers: list[bytes | None]) -> None:
        self.path = path
        self.answers = answers
        self.connections = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Policy:
        self.server = await asyncio.start_unix_server(self.accept, str(self.path))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.server.close()
        await asyncio.gather(*self.tasks)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.create_task(self.serve(reader, writer, self.connections)))

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        try:
            while True:
                await reader.readuntil(b"\n\n")
                answer = self.answers.pop(0) if self.answers else b"action=%d\n\n" % number
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


def asked(
    path: Path, answers: list[bytes | None], times: int, settings: PolicySettings = SETTINGS
) -> list[str]:
    async def connect(factory: Callable[[], PolicyConnection]) -> PolicyConnection:
        loop = asyncio.get_running_loop()
        return (await loop.create_unix_connection(factory, str(path)))[1]

    async def run() -> list[str]:
        async with Policy(path, answers):
            server = PolicyServer(settings, connect)
            out = [await server.ask([("request", "x")]) for _ in range(times)]
            server.close()
            return out

    return asyncio.run(run())


def test_connections_are_kept(short_tmp: Path) -> None:
    assert asked(short_tmp / "s", [], 3) == ["1", "1", "1"]


def test_a_limit_of_requests(short_tmp: Path) -> None:
    limited = replace(SETTINGS, request_limit=2)
    assert asked(short_tmp / "s", [], 5, limited) == ["1", "1", "2", "2", "3"]


def test_a_kept_connection_that_was_closed(short_tmp: Path, warnings: list[str]) -> None:
    assert asked(short_tmp / "s", [b"action=ok\n\n", None], 2) == ["ok", "2"]
    assert warnings == []


def test_a_server_that_fails_once(short_tmp: Path, warnings: list[str]) -> None:
    assert asked(short_tmp / "s", [None], 1) == ["2"]
    assert warnings == ["warning: problem talking to server unix:policy: Connection lost"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"action=a\n\naction=b\n\n", "more than one answer"),
        (b"\n\n", "answer without attributes"),
        (None, "Connection lost"),
    ],
)
def test_a_server_that_fails_for_good(
    short_tmp: Path, warnings: list[str], answer: bytes | None, reason: str
) -> None:
    assert asked(short_tmp / "s", [answer, answer], 1) == ["451 4.3.5 later"]
    assert warnings == [f"warning: problem talking to server unix:policy: {reason}"] * 2


def test_no_answer_in_time(short_tmp: Path, warnings: list[str]) -> None:
    hasty = replace(SETTINGS, timeout=0.01, try_limit=1)
    assert asked(short_tmp / "s", [b""], 1, hasty) == ["451 4.3.5 later"]
    text = "warning: problem talking to server unix:policy: Connection timed out"
    assert warnings == [text]


def test_nobody_there(short_tmp: Path, warnings: list[str]) -> None:
    async def connect(factory: Callable[[], PolicyConnection]) -> PolicyConnection:
        raise ConnectionRefusedError(111, "Connection refused")

    server = PolicyServer(replace(SETTINGS, default_action="DUNNO"), connect)
    assert asyncio.run(server.ask([])) == "DUNNO"
    assert len(warnings) == 2
