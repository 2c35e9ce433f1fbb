"""tlsmgr(8), and what its clients have of it."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest

from daemons.tlsmgr import SERVICE, TlsManager
from libmail.clients.tlsmgr import TlsmgrClient, TlsmgrClientParams
from libmail.config import open_config
from libmail.ipc.codec import WireError
from libmail.ipc.messages import TicketKeyRecord, TicketKeysReply, TicketKeysRequest, TlsTrace
from libmail.log import LOG, Fatal
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Startup
from libmail.tables.disk.lmdb_cache import LmdbCache
from libmail.tables.table import TableOptions
from libmail.tls.session_cache import SessionCache
from libmail.tls.tickets import TicketKey, TicketKeys, TicketRotation
from libmail.tls.traces import TraceFiles, TraceRate
from tests.unit.waiting import PATIENCE, until

OWNER = pwd.getpwuid(os.geteuid()).pw_name
PERIOD = 3600.0


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """tlsmgr in a directory, and clients of it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "private").mkdir()
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/tlsmgr")
        self._tasks: set[asyncio.Task[object]] = set()
        self._clients: list[TlsmgrClient] = []

    def manager(self, **settings: str) -> TlsManager:
        lines = [f"{name} = {value}" for name, value in settings.items()]
        (self.top / "main.cf").write_text("\n".join([f"mail_owner = {OWNER}", *lines, ""]))
        (self.top / "master.cf").write_text("tlsmgr unix - - n 1000? 1 tlsmgr\n")
        return SERVICE.prepare(Startup(open_config(str(self.top)), "tlsmgr", ()))

    def spawn(self, coroutine: Coroutine[object, object, object]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(coroutine))

    def client(self, cache: str = "smtpd") -> TlsmgrClient:
        self._clients.append(TlsmgrClient(TlsmgrClientParams("tlsmgr"), cache, self.spawn))
        return self._clients[-1]

    async def _session(self, manager: TlsManager, connection: Connection) -> None:
        try:
            await manager.serve(connection)
        except ConnectionLost:
            pass
        finally:
            connection.abort()

    async def _serve(self, manager: TlsManager, talk: Callable[[], Awaitable[None]]) -> None:
        def accept() -> Connection:
            connection = Connection("tlsmgr")
            self.spawn(self._session(manager, connection))
            return connection

        server = await asyncio.get_running_loop().create_unix_server(accept, "private/tlsmgr")
        try:
            await talk()
        finally:
            server.close()

    def run(self, manager: TlsManager | None, talk: Callable[[], Awaitable[None]]) -> None:
        """Do something, while tlsmgr serves if there is one."""

        async def main() -> None:
            doing = talk() if manager is None else self._serve(manager, talk)
            await asyncio.wait_for(doing, PATIENCE)
            for client in self._clients:
                client.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)

        asyncio.run(main())


@pytest.fixture
def world(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(short_tmp)
    return World(short_tmp)


async def until_session(client: TlsmgrClient, key: str, wanted: bytes) -> None:
    """What is to be kept or forgotten is so some time."""
    while await client.session(key) != wanted:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


# -- keys of tickets


def test_keys_rotate() -> None:
    rotation = TicketRotation(PERIOD)
    present, following = rotation.keys(0.0)
    assert rotation.keys(PERIOD - 1) == (present, following)
    before, now, following = rotation.keys(PERIOD)
    assert (before, now) == (present, rotation.keys(PERIOD)[1])
    assert now == rotation.keys(1.5 * PERIOD)[1]
    assert rotation.keys(2 * PERIOD)[0] == now
    assert len({key.name for key in (before, now, following)}) == 3
    fresh = rotation.keys(100 * PERIOD)  # after a long sleep
    assert len(fresh) == 2
    assert fresh[0].issues_from == 100 * PERIOD


def test_keys_when_the_clock_is_set_back() -> None:
    rotation = TicketRotation(PERIOD)
    rotation.keys(100 * PERIOD)
    (present, _) = rotation.keys(0.0)
    assert present.issues_from == 0.0


def test_what_one_process_makes_another_can_open() -> None:
    """Processes that have asked at different times have no moment without a common key."""
    clock = Clock(0.0)
    rotation = TicketRotation(PERIOD)
    early, late = TicketKeys(clock), TicketKeys(clock)
    early.replace(rotation.keys(0.0))
    for step in range(40):
        clock.now = step * PERIOD / 10
        if step % 10 == 5:
            early.replace(rotation.keys(clock.now))
        if step % 10 == 9 or not step:
            late.replace(rotation.keys(clock.now))
        for one, other in ((early, late), (late, early)):
            key = one.to_issue()
            assert key is not None
            assert other.to_open(key.name) == key


def test_keys_end() -> None:
    clock = Clock(0.0)
    keys = TicketKeys(clock)
    assert keys.to_issue() is None
    key = TicketKey(bytes(16), bytes(32), bytes(32), 10.0, 20.0, 30.0)
    keys.replace([key])
    for now, makes, opens in (
        (5, False, True),
        (10, True, True),
        (20, False, True),
        (30, False, False),
    ):
        clock.now = now
        assert (keys.to_issue() == key, keys.to_open(bytes(16)) == key) == (makes, opens)
    assert keys.to_open(b"x" * 16) is None
    with pytest.raises(ValueError):
        TicketKey(b"", bytes(32), bytes(32), 0, 0, 0)
    assert "cipher_key" not in repr(key)


def test_client_has_keys_at_hand(world: World) -> None:
    manager = world.manager(smtpd_tls_session_cache_timeout="600s")

    async def talk() -> None:
        first, second = world.client(), world.client()
        for client in (first, second):
            client.keep_keys()
            await until(lambda: client.tickets.to_issue() is not None)  # noqa: B023
        key = first.tickets.to_issue()
        assert key is not None
        assert second.tickets.to_open(key.name) == key
        assert 0 < key.issues_until - time.time() <= 600

    world.run(manager, talk)
    assert world.logged == []


def test_no_tickets_wanted(world: World) -> None:
    manager = world.manager(smtpd_tls_session_cache_timeout="0")

    async def talk() -> None:
        client = world.client()
        client.keep_keys()
        pool = ServicePool("private/tlsmgr")
        assert await pool.call(TicketKeysRequest(), TicketKeysReply) == TicketKeysReply(())
        pool.close()
        assert client.tickets.to_issue() is None

    world.run(manager, talk)


def test_without_tlsmgr_nothing_waits(world: World) -> None:
    async def talk() -> None:
        client = world.client()
        client.keep_keys()
        assert await client.session("key") == b""
        client.keep("key", b"session")
        client.remove("key")
        await until(lambda: bool(world.logged))
        assert client.tickets.to_issue() is None

    world.run(None, talk)
    assert (
        world.logged
        == [
            "warning: no keys for TLS session tickets: connect to private/tlsmgr:"
            " No such file or directory"
        ]
        or "no keys for TLS session tickets" in world.logged[0]
    )


def test_keys_that_are_none_are_refused(world: World) -> None:
    class Liar(TlsManager):
        def keys(self, now: float) -> tuple[TicketKeyRecord, ...]:
            return (TicketKeyRecord("zz", "", "", now, now + 1, now + 2),)

    async def talk() -> None:
        client = world.client()
        client.keep_keys()
        await until(lambda: bool(world.logged))
        assert client.tickets.to_issue() is None

    world.run(Liar(None, {}, TraceFiles(TraceRate(1))), talk)


# -- sessions


def test_sessions(world: World) -> None:
    manager = world.manager(smtp_tls_session_cache_database=f"btree:{world.top}/cache")
    data = bytes(range(256)) * 8

    async def talk() -> None:
        client, other = world.client("smtp"), world.client("lmtp")
        assert await client.session("key") == b""
        client.keep("key", data)
        other.keep("key", data)
        await until_session(client, "key", data)
        assert await other.session("key") == b""  # no such cache is configured
        client.remove("key")
        await until_session(client, "key", b"")

    world.run(manager, talk)
    assert world.logged == []
    assert (world.top / "cache.lmdb").stat().st_mode & 0o077 == 0


def cache(top: Path, clock: Clock, lifetime: float = 100.0) -> SessionCache:
    table = LmdbCache("lmdb:x", str(top / "x.lmdb"), TableOptions(fold=False))
    return SessionCache(table, lifetime, clock)


def test_sessions_grow_old(tmp_path: Path) -> None:
    clock = Clock()
    kept = cache(tmp_path, clock)

    async def talk() -> None:
        for number in range(3):
            assert await kept.store(f"key{number}", "AAAA")
            clock.now += 40
        assert await kept.lookup("key0") == ""
        assert await kept.lookup("key2") == "AAAA"
        assert await kept.tidy() == 0
        clock.now += 50
        assert await kept.tidy() == 1
        clock.now -= 1000  # the clock was set
        assert await kept.lookup("key2") == ""

    asyncio.run(talk())


def test_oldest_of_too_many_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmail.tls.session_cache._MOST", 2)
    clock = Clock()
    kept = cache(tmp_path, clock)

    async def talk() -> None:
        for number in range(4):
            if number == 2:
                assert await kept.tidy() == 0
            await kept.store(f"key{number}", "AAAA")
            clock.now += 1
        assert await kept.tidy() == 2
        assert [await kept.lookup(f"key{number}") for number in range(4)] == [
            "",
            "",
            "AAAA",
            "AAAA",
        ]

    asyncio.run(talk())


def test_not_more_are_kept_than_time_can_take_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without tickets makes one with each handshake."""
    monkeypatch.setattr("libmail.tls.session_cache._MOST", 2)
    kept = cache(tmp_path, Clock())

    async def talk() -> None:
        for number in range(20):
            assert await kept.store(f"key{number}", "AAAA")
        found = [await kept.lookup(f"key{number}") for number in range(20)]
        assert found == ["AAAA"] * 2 + [""] * 18
        await kept.tidy()
        assert await kept.store("key9", "AAAA")
        assert await kept.lookup("key9") == "AAAA"

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("key", "session"),
    [
        ("", "AAAA"),
        ("k" * 301, "AAAA"),
        ("a b", "AAAA"),
        ("k", ""),
        ("k", "A A"),
        ("k", "A" * 65537),
    ],
)
def test_sessions_that_are_none(tmp_path: Path, key: str, session: str) -> None:
    kept = cache(tmp_path, Clock())

    async def talk() -> None:
        assert not await kept.store(key, session)
        assert await kept.lookup(key) == ""
        await kept.remove(key)

    asyncio.run(talk())


def test_requests_that_are_bogus(world: World) -> None:
    manager = world.manager()

    async def talk() -> None:
        with pytest.raises(WireError, match='bogus cache type "x"'):
            await manager.find("x", "key")
        assert await manager.find("smtpd", "key") == ""

    world.run(None, talk)


def test_traces(world: World) -> None:
    manager = world.manager(tls_trace_rate_limit="2")
    folder = world.top / "tlstrace"

    async def talk() -> None:
        client = world.client()
        client.trace("smtpd", "192.0.2.1", "x")  # there is no such directory
        await until(lambda: any("TLS traces" in line for line in world.logged))
        folder.mkdir()
        for _ in range(3):
            client.trace("smtpd", "192.0.2.1", "ClientHello")
        await until(lambda: len(list(folder.iterdir())) >= 1)
        assert next(folder.iterdir()).read_text() == "ClientHello"

    world.run(manager, talk)


def test_traces_that_are_none(world: World) -> None:
    with pytest.raises(WireError, match="no trace"):
        world.manager().trace(TlsTrace("../../etc/x", "", "x"))


def test_tables_that_cannot_be(world: World) -> None:
    """The same table twice is fatal, one that does not open is done without."""
    table = f"btree:{world.top}/cache"
    with pytest.raises(Fatal, match="do not use the same TLS cache file"):
        world.manager(smtp_tls_session_cache_database=table, smtpd_tls_session_cache_database=table)
    manager = world.manager(smtp_tls_session_cache_database="btree:/nowhere/cache")
    assert manager.names() == ()
    assert "TLS sessions are not kept" in world.logged[0]
