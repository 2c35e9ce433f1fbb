"""The clients of cleanup and trivial-rewrite, against a peer on a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.ipc.codec import Chunk
from libmail.ipc.messages import (
    CleanupAbort,
    CleanupOpen,
    CleanupOpened,
    CleanupResult,
    Envelope,
    Nexthop,
    QueueId,
    Recipient,
    Recipients,
    ResolveFlag,
    ResolveReply,
    ResolveRequest,
    RewriteReply,
    RewriteRequest,
    Transport,
)
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable

Peer = Callable[[Connection], Awaitable[None]]
ID = QueueId("ABCDEF01")


async def serve(path: str, peer: Peer, tasks: list[asyncio.Task[None]]) -> asyncio.Server:
    async def session(connection: Connection) -> None:
        try:
            await peer(connection)
        except ConnectionLost:
            pass
        finally:
            connection.close()

    def accept() -> Connection:
        connection = Connection(path)
        tasks.append(asyncio.get_running_loop().create_task(session(connection)))
        return connection

    return await asyncio.get_running_loop().create_unix_server(accept, path)


def run(path: Path, peer: Peer, client: Callable[[ServicePool], Awaitable[None]]) -> int:
    """Returns how many connections were made."""
    sessions: list[asyncio.Task[None]] = []

    async def main() -> None:
        server = await serve(str(path / "s"), peer, sessions)
        pool = ServicePool(str(path / "s"), timeout=30)
        async with asyncio.timeout(60):
            try:
                await client(pool)
            finally:
                pool.close()
                server.close()
            await asyncio.gather(*sessions)

    asyncio.run(main())
    return len(sessions)


async def take(connection: Connection, taken: list[object]) -> None:
    while True:
        unit = await connection.receive()
        taken.append(unit)
        if isinstance(unit, CleanupOpen):
            connection.send(CleanupOpened(ID))
        elif isinstance(unit, Chunk) and not unit.data:
            connection.send(CleanupResult(0, "", "", ID))


def test_submissions_share_a_connection(tmp_path: Path) -> None:
    taken: list[object] = []
    recipients = [Recipient(f"{n}@b.test") for n in range(501)]
    big = b"x" * 300_000

    async def client(pool: ServicePool) -> None:
        cleanup = CleanupClient(pool)
        for content in (b"small", big):
            submission = await cleanup.open(7)
            assert submission.queue_id == ID
            submission.envelope(Envelope(sender="a@b.test"), recipients)
            await submission.write(content)
            assert (await submission.finish()).status == 0
        submission = await cleanup.open(1)
        submission.envelope(Envelope(sender="c@b.test"), [])
        await submission.write(b"part")
        submission.abort()
        submission.abort()

    assert run(tmp_path, lambda c: take(c, taken), client) == 1
    envelope = [Envelope(sender="a@b.test", cleanup_flags=7), Recipients(tuple(recipients[:500])),
                Recipients((recipients[500],))]  # fmt: skip
    assert taken[:6] == [CleanupOpen(7), *envelope, Chunk(b"small"), Chunk(b"")]
    assert taken[6:10] == [CleanupOpen(7, another=True), *envelope]
    assert b"".join([unit.data for unit in taken[10:-3] if isinstance(unit, Chunk)]) == big
    # cleanup sees what there is of a message that is dropped
    dropped = [Envelope(sender="c@b.test", cleanup_flags=1), Chunk(b"part")]
    assert taken[-4:] == [CleanupOpen(1, another=True), *dropped, CleanupAbort()]


def test_the_next_message_begins_without_a_question(tmp_path: Path) -> None:
    taken: list[object] = []
    names = iter(QueueId(f"NEXT0{number}") for number in range(1, 9))

    async def peer(connection: Connection) -> None:
        """Like cleanup(8); what is promised is not asked for."""
        another = False
        while True:
            unit = await connection.receive()
            taken.append(unit)
            if isinstance(unit, CleanupOpen):
                connection.send(CleanupOpened(ID))
                another = unit.another
            elif isinstance(unit, Chunk) and not unit.data:
                promised = next(names) if another else QueueId("")
                connection.send(CleanupResult(0, "", "", ID, next_id=promised))

    async def client(pool: ServicePool) -> None:
        cleanup = CleanupClient(pool)

        async def send(*, complete: bool = True) -> str:
            submission = await cleanup.open(7)
            submission.envelope(Envelope(sender=""), [])
            if complete:
                assert (await submission.finish()).status == 0
            else:
                submission.abort()
            return submission.queue_id

        assert [await send() for _ in range(3)] == [ID, ID, "NEXT01"]
        assert await send(complete=False) == "NEXT02"  # which nobody else gets
        assert [await send() for _ in range(2)] == [ID, "NEXT03"]

    assert run(tmp_path, peer, client) == 1
    opens = [unit for unit in taken if isinstance(unit, CleanupOpen)]
    assert [one.another for one in opens] == [False, True, True]
    assert taken.count(CleanupAbort()) == 1


def test_a_promise_ends_with_the_connection(tmp_path: Path) -> None:
    sessions = 0

    async def peer(connection: Connection) -> None:
        nonlocal sessions
        sessions += 1
        while True:
            unit = await connection.receive()
            if isinstance(unit, CleanupOpen):
                connection.send(CleanupOpened(QueueId(f"CONN0{sessions}")))
            elif isinstance(unit, Chunk) and not unit.data:
                connection.leave()
                connection.send(CleanupResult(0, "", "", ID, next_id=QueueId("LOST01")))

    async def client(pool: ServicePool) -> None:
        cleanup = CleanupClient(pool)
        for number in (1, 2):
            submission = await cleanup.open(7)
            assert submission.queue_id == f"CONN0{number}"
            submission.envelope(Envelope(sender=""), [])
            await submission.finish()

    assert run(tmp_path, peer, client) == 2


def test_lost_cleanup_is_temporary(tmp_path: Path) -> None:
    async def peer(connection: Connection) -> None:
        await connection.receive()
        connection.send(CleanupOpened(ID))
        await connection.receive()

    async def client(pool: ServicePool) -> None:
        submission = await CleanupClient(pool).open(0)
        submission.envelope(Envelope(sender=""), [])
        with pytest.raises(ServiceUnavailable):
            await submission.finish()
        with pytest.raises(ServiceUnavailable):
            await submission.finish()

    run(tmp_path, peer, client)


def test_answers_are_remembered(tmp_path: Path) -> None:
    asked: list[object] = []

    async def peer(connection: Connection) -> None:
        while True:
            request = await connection.receive()
            asked.append(request)
            if isinstance(request, RewriteRequest):
                connection.send(RewriteReply(request.address + "@x.test"))
            elif isinstance(request, ResolveRequest):
                failed = int(ResolveFlag.FAIL) if request.address == "fail" else 0
                connection.send(ResolveReply(failed, Transport("t"), Nexthop("n"), "r"))

    async def client(pool: ServicePool) -> None:
        rewrite = RewriteClient(pool)
        answers = await asyncio.gather(*[rewrite.rewrite("local", "a") for _ in range(5)])
        assert answers == ["a@x.test"] * 5
        assert await rewrite.rewrite("local", "a") == "a@x.test"
        for _ in range(2):
            assert (await rewrite.resolve("s", "ok")).transport == "t"
            assert (await rewrite.resolve("s", "fail")).flags == ResolveFlag.FAIL

    run(tmp_path, peer, client)
    fail = ResolveRequest("s", "fail")
    assert asked == [RewriteRequest("local", "a"), ResolveRequest("s", "ok"), fail, fail]
