"""Kept connections to a service that retires, hangs or is not there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from libmail.ipc.codec import CHUNK_END, Chunk, WireError, chunk_parts
from libmail.ipc.messages import CODEC, FlushReply, NewMail, QueueFlush, QueueId
from libmail.service import connection as connection_module
from libmail.service.connection import Connection, ConnectionLost, Trigger
from libmail.service.pool import ServicePool, ServiceUnavailable

Serve = Callable[[Connection], Awaitable[None]]


def with_service(path: Path, serve: Serve, client: Callable[[str], Awaitable[None]]) -> int:
    """Run a client against a service; returns the number of connections."""

    async def run() -> int:
        loop = asyncio.get_running_loop()
        sessions: list[asyncio.Task[None]] = []

        async def session(connection: Connection) -> None:
            try:
                await serve(connection)
            except (ConnectionLost, WireError):
                pass
            connection.close()

        def accept() -> Connection:
            connection = Connection("test", serving=True)
            sessions.append(loop.create_task(session(connection)))
            return connection

        server = await loop.create_unix_server(accept, str(path / "s"))
        async with asyncio.timeout(60):
            await client(str(path / "s"))
            server.close()
            await server.wait_closed()
            await asyncio.gather(*sessions)
        return len(sessions)

    return asyncio.run(run())


async def answer(connection: Connection) -> None:
    while True:
        request = await connection.receive_as(QueueFlush)
        connection.send(FlushReply(request.queue_id))


def test_a_service_that_leaves_completes_what_it_was_asked(short_tmp: Path) -> None:
    async def serve(connection: Connection) -> None:
        request = await connection.receive_as(QueueFlush)
        connection.leave()
        connection.send(FlushReply(request.queue_id))
        await answer(connection)

    async def client(path: str) -> None:
        pool = ServicePool(path)
        for name in ("A", "B", "C"):
            assert await pool.call(QueueFlush(QueueId(name)), FlushReply) == FlushReply(name)
        pool.close()

    assert with_service(short_tmp, serve, client) == 3


def test_a_service_that_leaves_between_exchanges(short_tmp: Path) -> None:
    services: list[Connection] = []

    async def serve(connection: Connection) -> None:
        services.append(connection)
        await answer(connection)

    async def client(path: str) -> None:
        pool = ServicePool(path)
        assert await pool.call(QueueFlush(QueueId("A")), FlushReply) == FlushReply("A")
        services[0].leave()
        await asyncio.sleep(0)  # or not yet read: either way it is answered
        assert await pool.call(QueueFlush(QueueId("B")), FlushReply) == FlushReply("B")
        assert await pool.call(QueueFlush(QueueId("C")), FlushReply) == FlushReply("C")
        pool.close()

    assert with_service(short_tmp, serve, client) == 2


def test_a_connection_is_used_again(short_tmp: Path) -> None:
    async def client(path: str) -> None:
        pool = ServicePool(path)
        for name in ("A", "B", "C"):
            assert await pool.call(QueueFlush(QueueId(name)), FlushReply) == FlushReply(name)
        pool.close()

    assert with_service(short_tmp, answer, client) == 1


def test_a_service_that_retired_is_asked_anew(short_tmp: Path) -> None:
    async def once(connection: Connection) -> None:
        await connection.receive_as(QueueFlush)
        connection.send(FlushReply("x"))

    async def client(path: str) -> None:
        pool = ServicePool(path)
        for _ in range(3):
            await pool.call(QueueFlush(QueueId("")), FlushReply)
        pool.close()

    assert with_service(short_tmp, once, client) == 3


async def _hang_up(connection: Connection) -> None:
    await connection.receive()


async def _garbage(connection: Connection) -> None:
    await connection.receive()
    connection.write(b"\0\0\0\3abc")


async def _another(connection: Connection) -> None:
    await connection.receive()
    connection.send(NewMail(QueueId("A")))


async def _silence(connection: Connection) -> None:
    await connection.receive()
    await connection.receive()


@pytest.mark.parametrize("serve", [_hang_up, _garbage, _another, _silence])
def test_no_answer_is_a_temporary_error(short_tmp: Path, serve: Serve) -> None:
    async def client(path: str) -> None:
        pool = ServicePool(path, timeout=0.2)
        with pytest.raises(ServiceUnavailable):
            await pool.call(QueueFlush(QueueId("")), FlushReply)

    with_service(short_tmp, serve, client)


def test_nobody_listens(short_tmp: Path) -> None:
    async def run() -> None:
        with pytest.raises(ServiceUnavailable, match="No such file or directory"):
            await ServicePool(str(short_tmp / "nothing"), timeout=0.1).connect()

    asyncio.run(run())


def test_content_triggers_and_credentials(short_tmp: Path) -> None:
    seen: list[object] = []

    async def serve(connection: Connection) -> None:
        await connection.opened()
        seen.append(connection.credentials.uid)
        while True:
            seen.append(await connection.receive())

    async def client(path: str) -> None:
        pool = ServicePool(path)
        async with pool.connection() as connection:
            connection.write_parts([*chunk_parts(b"x" * 600_000), CHUNK_END])
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"W")
        writer.close()
        await writer.wait_closed()
        del reader
        pool.close()

    with_service(short_tmp, serve, client)
    assert seen.count(os.getuid()) == 2
    assert Trigger(b"W") in seen
    content = [item.data for item in seen if isinstance(item, Chunk)]
    assert b"".join(content) == b"x" * 600_000
    assert content[-1] == b""


def test_who_sends_much_lets_others_go_on(tmp_path: Path) -> None:
    """Exchanges of another client are not behind those that were sent in one go before."""
    many = 5000
    done: list[str] = []

    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        _, greedy = await loop.create_unix_connection(lambda: Connection(path), path)
        pool = ServicePool(path)
        other, _ = await pool.acquire()
        greedy.write(CODEC.encode(QueueFlush(QueueId("x"))) * many)
        other.send(QueueFlush(QueueId("x")))
        await other.receive_as(FlushReply)
        done.append("other")
        for _ in range(many):
            await greedy.receive_as(FlushReply)
        done.append("greedy")
        greedy.close()
        other.close()

    answered = 0

    async def serve(connection: Connection) -> None:
        nonlocal answered
        while True:
            await connection.receive_as(QueueFlush)
            answered += 1
            if not done:
                assert answered < many
            connection.send(FlushReply(""))

    with_service(tmp_path, serve, client)
    assert done == ["other", "greedy"]


def test_who_does_not_read_is_not_listened_to(tmp_path: Path) -> None:
    """Answers that nobody takes are not made any more."""
    many = 50_000
    answered = most = 0
    reading = asyncio.Event()

    async def serve(connection: Connection) -> None:
        nonlocal answered, most
        while True:
            await connection.receive_as(QueueFlush)
            answered += 1
            connection.send(FlushReply("x" * 100))
            assert connection._transport is not None
            most = max(most, connection._transport.get_write_buffer_size())
            if connection.write_paused:
                reading.set()

    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: Connection(path), path)
        connection._pause_reading()
        connection.write(CODEC.encode(QueueFlush(QueueId("x"))) * many)
        await reading.wait()
        for _ in range(many):
            await connection.receive_as(FlushReply)
        connection.close()

    with_service(tmp_path, serve, client)
    assert answered == many
    assert most < 1 << 18


def test_what_nobody_takes_is_dropped_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "LINGER", 0.01)
    closed = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.opened()
        connection.write(bytes(1 << 22))
        connection.close()
        with pytest.raises(ConnectionLost):
            await connection.receive()
        closed.set()

    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: Connection(path), path)
        connection._pause_reading()
        await closed.wait()
        connection.abort()

    with_service(tmp_path, serve, client)
