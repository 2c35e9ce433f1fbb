"""The client of verify(8): one connection, answers in any order, a process that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from libmail.clients.verify import VerifyClient
from libmail.ipc.messages import Leaving, VerifyQuery, VerifyReply
from libmail.lookup.verification import VerifyQuestion
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServiceUnavailable

OK, TODO = 0, 3
Serve = Callable[[Connection], Awaitable[None]]


def with_service(
    path: Path, serve: Serve, test: Callable[[VerifyClient], Awaitable[None]], timeout: float = 100
) -> int:
    """Run a test with a service; how many connections it had."""
    sessions: list[asyncio.Task[None]] = []

    async def session(connection: Connection) -> None:
        try:
            await serve(connection)
        except ConnectionLost:
            pass
        finally:
            connection.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def accept() -> Connection:
            connection = Connection("verify")
            sessions.append(loop.create_task(session(connection)))
            return connection

        server = await loop.create_unix_server(accept, str(path))
        client = VerifyClient(str(path), timeout=timeout)
        await test(client)
        client.close()
        await asyncio.gather(*sessions)
        server.close()

    asyncio.run(main())
    return len(sessions)


def test_answers_in_any_order(short_tmp: Path) -> None:
    async def serve(connection: Connection) -> None:
        asked = [await connection.receive_as(VerifyQuery) for _ in range(3)]
        for query in reversed(asked):
            connection.send(VerifyReply(OK, query.address, query.number))
        await connection.receive()

    async def test(client: VerifyClient) -> None:
        questions = [VerifyQuestion(name, 1.0) for name in ("a", "b", "c")]
        found = await asyncio.gather(*map(client.ask, questions))
        assert [reply.text for reply in found] == ["a", "b", "c"]

    assert with_service(short_tmp / "v", serve, test) == 1


def test_a_result_is_used_for_a_moment_but_not_that_there_is_none(short_tmp: Path) -> None:
    asked: list[str] = []

    async def serve(connection: Connection) -> None:
        while True:
            query = await connection.receive_as(VerifyQuery)
            asked.append(query.address)
            status = TODO if query.address == "new" else OK
            connection.send(VerifyReply(status, "", query.number))

    async def test(client: VerifyClient) -> None:
        for name in ("old", "new") * 2:
            await client.ask(VerifyQuestion(name, 0.0))
        client._known._life = 0.0
        client._known.clear()
        await client.ask(VerifyQuestion("old", 0.0))
        await client.ask(VerifyQuestion("old", 0.0))

    with_service(short_tmp / "v", serve, test)
    assert asked == ["old", "new", "new", "old", "old"]


def test_a_process_that_leaves_is_followed_by_another(short_tmp: Path) -> None:
    async def serve(connection: Connection) -> None:
        query = await connection.receive_as(VerifyQuery)
        connection.send(Leaving())
        connection.send(VerifyReply(OK, "", query.number))
        await connection.receive()

    async def test(client: VerifyClient) -> None:
        for name in ("a", "b"):
            assert (await client.ask(VerifyQuestion(name, 0.0))).status == OK

    assert with_service(short_tmp / "v", serve, test) == 2


def test_a_process_that_ends_is_replaced_once(short_tmp: Path) -> None:
    served: list[str] = []

    async def serve(connection: Connection) -> None:
        query = await connection.receive_as(VerifyQuery)
        served.append(query.address)
        if len(served) == 1:
            connection.send(VerifyReply(OK, "", query.number))
            served.append((await connection.receive_as(VerifyQuery)).address)

    async def test(client: VerifyClient) -> None:
        await client.ask(VerifyQuestion("a", 0.0))
        with pytest.raises(ServiceUnavailable, match="lost connection"):
            await client.ask(VerifyQuestion("b", 0.0))

    assert with_service(short_tmp / "v", serve, test) == 2
    assert served == ["a", "b", "b"]


def test_a_process_that_hangs(short_tmp: Path) -> None:
    async def serve(connection: Connection) -> None:
        while True:
            await connection.receive()

    async def test(client: VerifyClient) -> None:
        with pytest.raises(ServiceUnavailable, match="no answer in time"):
            await client.ask(VerifyQuestion("a", 0.01))

    with_service(short_tmp / "v", serve, test, timeout=0.01)


def test_nobody_is_there(short_tmp: Path) -> None:
    async def ask() -> None:
        client = VerifyClient(str(short_tmp / "v"), timeout=0.01)
        with pytest.raises(ServiceUnavailable):
            await client.ask(VerifyQuestion("a", 0.0))

    asyncio.run(ask())
