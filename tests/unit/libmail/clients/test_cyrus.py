"""The Cyrus library as a server: what blocks does so in threads, and not for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from libmail.log import LOG
from libmail.sasl.server import AuthContext, Failure, Success

cyrus = pytest.importorskip("libmail.sasl.cyrus", exc_type=ImportError)
clients = pytest.importorskip("libmail.clients.cyrus", exc_type=ImportError)
CONTEXT = AuthContext("smtp", "192.0.2.1", "4711", "192.0.2.2", "25")


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtpd")
    return lines


def test_lines_of_the_library(logged: list[str]) -> None:
    server = clients.CyrusServer(None)
    lines = ("SASL authentication failure: x\ny",)
    step = asyncio.run(server.call(lambda: cyrus.Outcome(Success("anna"), lines)))
    assert step == Success("anna")
    assert logged == ["warning: SASL authentication failure: x?y"]


def test_no_answer_in_time() -> None:
    go = threading.Event()

    def work() -> object:
        go.wait(60)
        return cyrus.Outcome(Success("late"), ())

    async def main() -> list[object]:
        server = clients.CyrusServer(None, timeout=0.2)
        try:
            found = await asyncio.gather(*(server.call(work) for _ in range(40)))
        finally:
            go.set()
        return list(found)

    late = Failure("no answer from authentication server in time", temporary=True)
    assert asyncio.run(main()) == [late] * 40


def test_a_library_that_fails(logged: list[str]) -> None:
    class Broken:
        def mechanisms(self) -> tuple[object, ...]:
            raise cyrus.CyrusError("SASL per-connection server initialization: generic failure")

        def connection(self, context: AuthContext) -> object:
            raise cyrus.CyrusError("no connection")

    server = clients.CyrusServer(Broken())

    async def main() -> object:
        assert await server.mechanisms() == ()
        return (await server.begin("PLAIN", None, CONTEXT))[1]

    assert asyncio.run(main()) == Failure("no connection", temporary=True)
    assert any("generic failure" in line for line in logged)


def test_ends() -> None:
    assert cyrus._end("::1", "25") == b"::1;25"
    assert cyrus._end("192.0.2.1", "unknown") == cyrus._FFI.NULL
    assert cyrus._end("", "25") == cyrus._FFI.NULL
