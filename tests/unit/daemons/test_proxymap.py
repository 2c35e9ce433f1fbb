"""proxymap(8), and the tables of its clients."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from daemons.proxymap import SERVICE, Tables, approved, serve
from libmail.config import Config, open_config
from libmail.ipc.messages import TableList, TableLookup, TableReply
from libmail.log import LOG, Fatal
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Startup
from libmail.tables.builtin.inline import open_named as open_inline
from libmail.tables.disk.lmdb_cache import LmdbCache
from libmail.tables.registry import is_pattern, open_with, open_writable
from libmail.tables.servers.proxy import ProxyTable
from libmail.tables.table import TableConfigError, TableOptions, TableRetry, lookup_now, run_now
from tests.unit.libmail.tables.recorder import Recorder

INLINE = "inline:{a=1, {b=two words}}"
FAILING = "fail:broken"
OWNER = pwd.getpwuid(os.geteuid()).pw_name
MASTER = "proxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\n"


class System:
    """Directories, configuration, and the two services."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "private").mkdir()
        (top / "master.cf").write_text(MASTER)
        (top / "main.cf").write_text(
            f"queue_directory = {top}\nmail_owner = {OWNER}\ncache = btree:{top}/cache\n"
            f"virtual_alias_maps = proxy:{INLINE} proxy:{FAILING}\n"
            "proxy_read_maps = $virtual_alias_maps\nproxy_write_maps = proxy:$cache\n"
        )
        self.cache = f"btree:{top}/cache"
        self.log = Recorder()
        self.config = open_config(str(top))
        self.options = TableOptions(config=self.config, log=self.log)
        self.sessions = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def tables(self, service: str) -> Tables:
        return SERVICE.prepare(Startup(self.config, service, ()))

    async def _session(self, tables: Tables, connection: Connection) -> None:
        self.sessions += 1
        try:
            await serve(tables, connection)
        except ConnectionLost:
            pass
        finally:
            connection.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        servers = []
        opened = []
        for service in ("proxymap", "proxywrite"):
            tables = self.tables(service)
            opened.append(tables)

            def accept(tables: Tables = tables) -> Connection:
                connection = Connection("test")
                self._tasks.add(loop.create_task(self._session(tables, connection)))
                return connection

            path = self.top / "private" / service
            servers.append(await loop.create_unix_server(accept, str(path)))
        try:
            yield
        finally:
            for server in servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for table in (table for tables in opened for table in tables.tables.values()):
                table.close()
            await asyncio.sleep(0)


@pytest.fixture
def system(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    monkeypatch.chdir(short_tmp)
    return System(short_tmp)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What proxymap logs."""
    found: list[str] = []
    monkeypatch.setattr(type(LOG), "warning", lambda _, text: found.append(text))
    return found


def run(system: System, main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60), system.running():
            await main()

    asyncio.run(limited())


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        ((), ()),
        (("hash:/a", "example.org", "/file"), ()),
        (("proxy:hash:/a", "proxy:hash:/a"), ("hash:/a",)),
        (("proxy:proxy:unix:passwd.byname",), ("unix:passwd.byname",)),
        (("proxy:pipemap:{hash:/a, hash:/b}",), ("pipemap:{hash:/a, hash:/b}",)),
        (("proxy:", "proxy:x", "check_client_access"), ()),
    ],
)
def test_approved(specs: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert approved(specs) == names


@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        ("hash:/a", False),
        ("proxy:regexp:/a", True),
        ("debug:static:x", True),
        ("pipemap:{regexp:/a, hash:/b}", False),
        ("unionmap:{regexp:/a, static:b}", True),
        ("unionmap:x", False),
        ("mysql:/x", False),
        ("proxy:socketmap:unix:/x:y", True),
    ],
)
def test_patterns_are_known_by_their_names(spec: str, pattern: bool) -> None:
    assert is_pattern(spec) is pattern


def test_lookups(system: System) -> None:
    async def main() -> None:
        table = open_with(f"proxy:{INLINE}", system.options)
        assert isinstance(table, ProxyTable)
        assert (table.spec, table.pattern) == (f"proxy:{INLINE}", False)
        assert [await table.lookup(key) for key in ("A", "b", "c", "", "a\0")] == [
            "1", "two words", None, None, None,
        ]  # fmt: skip
        assert system.sessions == 1
        table.close()

    run(system, main)
    assert system.log.lines == []


def test_a_table_that_fails(system: System, lines: list[str]) -> None:
    async def main() -> None:
        table = open_with(f"proxy:{FAILING}", system.options)
        with pytest.raises(TableRetry, match=f"^table proxy:{FAILING} lookup error: "):
            await table.lookup("a")
        table.close()

    run(system, main)


def test_unapproved(system: System, lines: list[str]) -> None:
    async def main() -> None:
        table = ProxyTable("static:secret", "proxymap", system.options)
        with pytest.raises(TableRetry, match="static:secret lookup error: the table is not"):
            await table.lookup("a")
        with pytest.raises(TableRetry, match="static:secret lookup error: the table is not"):
            [entry async for entry in table.listing()]
        table.close()

    run(system, main)
    expected = 'proxymap service is not configured for table "static:secret"'
    assert system.log.lines == [f"warning: {expected}"] * 2
    assert lines == 2 * [
        'request for unapproved table: "static:secret"',
        "to approve this table for read-only access, list proxy:static:secret in "
        "main.cf:proxy_read_maps",
    ]


def test_proxymap_changes_nothing(system: System, lines: list[str]) -> None:
    async def main() -> None:
        table = ProxyTable(INLINE, "proxymap", system.options)
        with pytest.raises(TableRetry, match="this service is for lookups only"):
            await table.update("a", "2")
        with pytest.raises(TableRetry, match="this service is for lookups only"):
            await table.delete("a")
        table.close()

    run(system, main)
    assert lines[0] == f"refusing {INLINE} update request on non-proxywrite service"
    assert lines[1] == f"refusing {INLINE} delete request on non-proxywrite service"


def test_changes(system: System) -> None:
    async def main() -> None:
        table = open_writable(f"proxy:{system.cache}", system.options)
        assert await table.lookup("k") is None
        await table.update("K", "v")
        await table.update("other", "x" * 5000)
        assert await table.lookup("k") == "v"
        await table.update("k", "w")
        assert await table.lookup("k") == "w"
        for number in range(200):
            await table.update(f"n{number:03}", "y" * 1000)
        entries = [entry async for entry in table.listing()]
        assert [key for key, _ in entries] == ["k", *(f"n{n:03}" for n in range(200)), "other"]
        assert await table.delete("k")
        assert not await table.delete("k")
        assert await table.lookup("k") is None
        table.close()

    run(system, main)
    table = open_with(system.cache, TableOptions(strict=True))
    assert lookup_now(table, "n007") == "y" * 1000


def test_an_answer_serves_for_a_while(system: System) -> None:
    async def main() -> None:
        first, second = (
            ProxyTable(system.cache, "proxywrite", system.options, cache_life)
            for cache_life in (3600.0, 0.0)
        )
        assert await second.lookup("k") is None
        assert await first.lookup("k") is None
        await second.update("k", "v")
        assert [await first.lookup("k"), await second.lookup("k")] == [None, "v"]
        first.close()
        second.close()

    run(system, main)


def test_a_command(system: System) -> None:
    """Without an event loop, against the service in another thread."""
    loop = asyncio.new_event_loop()
    ended, started = asyncio.Event(), Event()

    async def served() -> None:
        async with system.running():
            started.set()
            await ended.wait()

    thread = Thread(target=lambda: loop.run_until_complete(asyncio.wait_for(served(), 60)))
    thread.start()
    try:
        assert started.wait(60)
        table = ProxyTable(INLINE, "proxymap", system.options)
        assert [lookup_now(table, key) for key in "abc"] == ["1", "two words", None]
        assert system.sessions == 1
        assert list(table.entries()) == [("a", "1"), ("b", "two words")]
        other = open_with("proxy:static:x", system.options)
        with pytest.raises(TableRetry, match="not approved"):
            lookup_now(other, "a")
        cache = open_writable(f"proxy:{system.cache}", system.options)
        run_now(cache.update("k", "v"))
        assert run_now(cache.lookup("k")) == "v"
        assert run_now(cache.delete("k"))
        for one in (table, other, cache):
            one.close()
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def test_the_service_is_down(system: System) -> None:
    table = open_with(f"proxy:{INLINE}", system.options)
    with pytest.raises(TableRetry, match="connect to private/proxymap: No such file"):
        lookup_now(table, "a")


def test_other_directory(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    table = open_with(f"proxy:{INLINE}", system.options)
    with pytest.raises(TableRetry, match=f"connect to {system.top}/private/proxymap: "):
        lookup_now(table, "a")


def test_directly(system: System) -> None:
    sensitive = TableOptions(config=system.config, sensitive=True)
    table = open_with(f"proxy:proxy:{INLINE}", sensitive)
    assert table.spec == INLINE
    (system.top / "master.cf").write_text("")
    table = open_with(f"proxy:{INLINE}", system.options)
    assert lookup_now(table, "a") == "1"
    assert lookup_now(open_with(f"proxy:{INLINE}", TableOptions()), "a") == "1"
    with pytest.raises(TableConfigError, match="expecting"):
        open_with("proxy:nothing", TableOptions(strict=True))


def test_service_names(system: System) -> None:
    with pytest.raises(Fatal, match="service name must be one of proxymap or proxywrite"):
        system.tables("other")


def test_values_that_no_message_can_carry(short_tmp: Path) -> None:
    options = TableOptions()
    long = open_inline("inline", "{{k=%s}}" % ("x" * 200_000), options)
    tables = Tables("proxy_read_maps", {"x:y": long})

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sessions = []

        def accept() -> Connection:
            connection = Connection("test")
            sessions.append(loop.create_task(serve(tables, connection)))
            return connection

        server = await loop.create_unix_server(accept, str(short_tmp / "s"))
        pool = ServicePool(str(short_tmp / "s"))
        reply = await pool.call(TableLookup("x:y", "k"), TableReply)
        assert reply == TableReply(2, "the value is too long or has a null byte")
        async with pool.connection() as connection:
            connection.send(TableList("x:y"))
            assert "too long" in str(await connection.receive())
        pool.close()
        server.close()
        await asyncio.gather(*sessions, return_exceptions=True)
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_cache_behind_a_worker(tmp_path: Path) -> None:
    spec = f"btree:{tmp_path}/cache"

    async def main() -> None:
        config = Config("").override([("mail_owner", OWNER)])
        cache = open_writable(spec, TableOptions(map_size=65536, config=config))
        assert isinstance(cache, LmdbCache)
        values = {f"key{n}": "v" * n for n in range(600)}
        await asyncio.gather(*(cache.update(key, value) for key, value in values.items()))
        assert dict([entry async for entry in cache.listing()]) == values
        assert not await cache.delete("k" * 1000)
        assert await cache.lookup("k" * 1000) is None
        with pytest.raises(TableRetry):
            await cache.update("k" * 1000, "v")
        assert not cache.replaced
        (tmp_path / "cache.lmdb").unlink()
        assert cache.replaced
        cache.close()

    asyncio.run(main())


def test_tables_that_cannot_be_changed(tmp_path: Path) -> None:
    strict = TableOptions(strict=True)
    for spec in ("regexp:/x", f"btree:{tmp_path}/not/there", "x"):
        with pytest.raises(TableConfigError):
            open_writable(spec, strict)
    log = Recorder()
    table = open_writable("regexp:/x", TableOptions(log=log))
    with pytest.raises(TableRetry, match="cannot be updated"):
        run_now(table.update("a", "b"))
    with pytest.raises(TableRetry, match="cannot be updated"):
        run_now(table.delete("a"))


def test_internal() -> None:
    table = open_writable("internal:x", TableOptions())

    async def main() -> None:
        await table.update("K", "v")
        assert await table.lookup("k") == "v"
        assert [entry async for entry in table.listing()] == [("k", "v")]
        assert await table.delete("k")
        assert not await table.delete("k")

    asyncio.run(main())
