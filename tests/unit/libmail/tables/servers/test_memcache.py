"""memcache: the protocol of memcached, which keys it gets, and the table behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.net.stream_client import LinkError
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.queries.client_file import ClientFile
from libmail.tables.registry import open_with, open_writable
from libmail.tables.servers.memcache import MemcacheCache, MemcacheTable, Reply, reply_parser
from libmail.tables.servers.memcache import Server as Memcached
from libmail.tables.table import TableConfigError, TableOptions, TableRetry, TableUnsupported
from tests.unit.libmail.tables.recorder import Recorder
from tests.unit.libmail.tables.stream_server import Serve, Server, run

PARSE = reply_parser(20, 10)


class Setting:
    """A client file, and tables over a server of the test."""

    def __init__(self, path: Path, log: Recorder) -> None:
        self.path = path
        self.log = log
        self.options = TableOptions(log=log)
        self.spec = f"memcache:{path}"
        self.backup = InternalTable("internal:x", self.options)
        path.write_text("max_try = 1\n")

    def memcached(self, server: Server) -> Memcached:
        client = ClientFile("memcache", str(self.path), self.options)
        return Memcached(self.spec, "mc:11211", client, self.options, server)

    def table(self, server: Server, *, backup: bool = False) -> MemcacheTable:
        return MemcacheTable(self.memcached(server), self.backup if backup else None)

    def cache(self, server: Server, *, backup: bool = False) -> MemcacheCache:
        return MemcacheCache(self.memcached(server), self.backup if backup else None)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "mc.cf", Recorder())


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", None),
        (b"END\r", None),
        (b"END\r\n", (Reply(b"END"), 5)),
        (b"STORED\r\nmore", (Reply(b"STORED"), 8)),
        (b"VALUE k 0 5\r\nab", None),
        (b"VALUE k 0 2\r\nab\r\nEN", None),
        (b"VALUE k 0 2\r\nab\r\nEND\r\n", (Reply(b"k", b"ab"), 22)),
        (b"VALUE k 0 0\r\n\r\nEND\r\n", (Reply(b"k", b""), 20)),
        (b"VALUE k 0 2\r\n\r\n\r\nEND\r\n", (Reply(b"k", b"\r\n"), 22)),
        (b"VALUE k 0 2 77\r\nab\r\nEND\r\n", (Reply(b"k", b"ab"), 25)),
    ],
)
def test_replies(data: bytes, answer: tuple[Reply, int] | None) -> None:
    assert PARSE(data) == answer


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 21,
        b"VALUE k 0\r\n",
        b"VALUE k 0 -1\r\n",
        b"VALUE k 0 11\r\n",
        b"VALUE k 0 2\r\nabc",
        b"VALUE k 0 2\r\nab\r\nVALUE",
    ],
)
def test_unusable_replies(data: bytes) -> None:
    with pytest.raises(LinkError):
        PARSE(data)


@given(st.binary(max_size=30) | st.binary(max_size=30).map(lambda end: b"VALUE k 0 2\r\n" + end))
def test_any_octets_are_a_reply_or_an_error(data: bytes) -> None:
    try:
        found = PARSE(data)
    except LinkError:
        return
    assert found is None or found[1] <= len(data)


def test_lookups(setting: Setting) -> None:
    async def main(serve: Serve) -> None:
        answers: dict[bytes, bytes | None] = {
            b"get key\r\n": b"VALUE key 0 3\r\nabc\r\nEND\r\n",
            b"get other\r\n": b"END\r\n",
        }
        table = setting.table(serve(answers))
        assert [await table.lookup(key) for key in ("KEY", "other", "")] == ["abc", None, None]
        table.close()

    run(main)
    assert setting.log.lines == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"ERROR\r\n", "unexpected reply: ERROR"),
        (b"SERVER_ERROR out of memory\r\n", "unexpected reply: SERVER_ERROR out of memory"),
        (b"VALUE other 0 1\r\nx\r\nEND\r\n", "unexpected reply: other"),
        (b"VALUE key 0 10241\r\n", "a value of 10241 octets, limit 10240"),
        (b"x" * 1025, "a reply line that is too long"),
        (None, "unexpected disconnect"),
    ],
)
def test_no_answer(setting: Setting, answer: bytes | None, problem: str) -> None:
    async def main(serve: Serve) -> None:
        table = setting.table(serve({b"get key\r\n": answer}))
        with pytest.raises(TableRetry) as caught:
            await table.lookup("key")
        assert str(caught.value) == f"table {setting.spec} lookup error: {problem}"
        table.close()

    run(main)
    assert setting.log.lines == [f"warning: database {setting.spec}: {problem}"]


def test_no_server(setting: Setting) -> None:
    async def main(serve: Serve) -> None:
        server = serve({}, refuse=True)
        with pytest.raises(TableRetry, match="lookup error: Connection refused"):
            await setting.table(server).lookup("key")
        await setting.backup.update("key", "kept")
        assert await setting.table(server, backup=True).lookup("key") == "kept"
        cache = setting.cache(server, backup=True)
        await cache.update("key", "new")
        assert await cache.lookup("key") == "new"
        assert await cache.delete("key")
        with pytest.raises(TableRetry):
            await setting.cache(server).update("key", "new")

    run(main)
    assert set(setting.log.lines) == {"warning: connect to mc:11211: Connection refused"}


def test_the_backup_fills_the_server(setting: Setting) -> None:
    setting.path.write_text("flags = 4\nttl = 60\nkey_format = x:%s\n")

    async def main(serve: Serve) -> None:
        await setting.backup.update("key", "värde")
        store = "set x:key 4 60 6\r\nvärde\r\n".encode()
        server = serve({b"get x:key\r\n": b"END\r\n", store: b"STORED\r\n"})
        table = setting.table(server, backup=True)
        assert await table.lookup("key") == "värde"
        assert server.asked[-1][1] == store
        server.answers[b"get x:none\r\n"] = b"END\r\n"
        assert await table.lookup("none") is None
        assert list(table.entries()) == [("key", "värde")]
        server.answers[store] = b"SERVER_ERROR full\r\n"
        assert await table.lookup("key") == "värde"
        table.close()

    run(main)
    assert len(setting.log.lines) == 1


def test_changes(setting: Setting) -> None:
    async def main(serve: Serve) -> None:
        server = serve(
            {
                b"set key 0 3600 1\r\nv\r\n": b"STORED\r\n",
                b"delete key\r\n": b"DELETED\r\n",
                b"delete gone\r\n": b"NOT_FOUND\r\n",
            }
        )
        cache = setting.cache(server, backup=True)
        await cache.update("key", "v")
        assert await setting.backup.lookup("key") == "v"
        assert [entry async for entry in cache.listing()] == [("key", "v")]
        assert await cache.delete("key")
        assert await setting.backup.lookup("key") is None
        assert not await cache.delete("gone")
        alone = setting.cache(server)
        with pytest.raises(TableUnsupported, match="requires backup database"):
            [entry async for entry in alone.listing()]
        assert list(setting.table(server).entries()) == []
        cache.close()
        alone.close()

    run(main)
    expected = f"database {setting.spec}: first/next support requires backup database"
    assert setting.log.lines == [f"warning: {expected}"]


def test_keys_that_the_server_does_not_get(setting: Setting) -> None:
    setting.path.write_text("key_format = %u:%2\ndomain = example.org a.b\n")

    async def main(serve: Serve) -> None:
        server = serve({b"get user:example\r\n": b"END\r\n"})
        await setting.backup.update("user", "v")
        table = setting.table(server, backup=True)
        keys = ["user", "user@other.org", "@example.org", "a b@example.org", f"{'x' * 250}@a.b"]
        assert [await table.lookup(key) for key in keys] == [None] * 5
        assert server.asked == []
        assert await table.lookup("user@example.org") is None
        cache = setting.cache(server)
        await cache.update("user", "v")
        assert not await cache.delete("a b@example.org")
        assert len(server.asked) == 1
        table.close()

    run(main)
    assert setting.log.lines == [
        f'warning: {setting.spec}: skipping update of "user": domain mismatch',
        f'warning: {setting.spec}: skipping delete of "a b@example.org": '
        "too long, or with white space",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("memcache = mc.example.org:1", "invalid transport name"),
        ("memcache = inet:mc.example.org:no-such-port", "unknown service"),
        ("ttl = soon", "bad numerical"),
        ("max_try = 0", "max_try"),
        ("key_format = %x", "invalid key_format template"),
        ("backup = nothing", "expecting"),
    ],
)
def test_mistakes(setting: Setting, text: str, problem: str) -> None:
    setting.path.write_text(text)
    for opened in (open_with, open_writable):
        with pytest.raises(TableConfigError, match=problem):
            opened(setting.spec, TableOptions(strict=True))


def test_nobody_vouches_for_it(setting: Setting) -> None:
    with pytest.raises(TableConfigError, match="not allowed for security-sensitive data"):
        open_with(setting.spec, TableOptions(strict=True, sensitive=True))
