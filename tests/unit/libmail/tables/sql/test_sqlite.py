"""sqlite: tables, on real databases."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.files.freshness import outdated
from libmail.tables.queries.query_table import QueryTable
from libmail.tables.registry import open_with
from libmail.tables.sql.sqlite import SqliteQuery, open_named
from libmail.tables.table import TableConfigError, TableOptions, TableRetry, lookup_now
from tests.unit.libmail.tables.recorder import Recorder

ROWS = [
    ("foo", "bar", 1),
    ("foo", "baz", 2),
    ("number", 12, 3),
    ("null", None, 4),
    ("empty", "", 5),
    ("blob", b"\xff", 6),
    ("o'x", "quote", 7),
    ("u@d.org", "address", 8),
]


def make_database(path: Path, rows: Sequence[tuple[object, ...]] = ROWS) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (a TEXT, b, c INTEGER)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    database.close()


def make_table(
    tmp_path: Path, settings: str, log: Recorder | None = None, *, utf8: bool = True
) -> QueryTable[sqlite3.Connection]:
    if not (tmp_path / "db").exists():
        make_database(tmp_path / "db")
    (tmp_path / "x.cf").write_text(f"dbpath = {tmp_path}/db\n{settings}\n")
    options = TableOptions(log=log or Recorder(), strict=True, utf8=utf8)
    return open_named("sqlite", f"{tmp_path}/x.cf", options)


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ("query = SELECT b FROM t WHERE a = '%s'", "foo", "bar,baz"),
        ("query = SELECT b FROM t WHERE a = '%s'", "FOO", "bar,baz"),
        ("query = SELECT b FROM t WHERE a = '%s'", "number", "12"),
        ("query = SELECT b FROM t WHERE a = '%s'", "null", None),
        ("query = SELECT b FROM t WHERE a = '%s'", "empty", None),
        ("query = SELECT b FROM t WHERE a = '%s'", "o'x", "quote"),
        ("query = SELECT b FROM t WHERE a = '%s'", "nobody", None),
        ("query = SELECT b FROM t WHERE a = '%s'", "' OR 1=1 --", None),
        ("query = SELECT b FROM t WHERE a = '%s'", "a\0b", None),
        ("query = SELECT b FROM t WHERE a = '%s'", "x" * 10000, None),
        ('query = SELECT b FROM t WHERE a = "%s"', "foo", "bar,baz"),
        ('query = SELECT b FROM t WHERE a = "%s"', '"', None),
        ("query = SELECT b FROM t WHERE c = %s", "2", "baz"),
        ("query = SELECT b FROM t WHERE c = %s", "2 OR 1", None),
        ("query = SELECT b, a FROM t WHERE a = '%s'", "foo", "bar,baz"),
        ("query = SELECT b FROM t WHERE a = '%u@%d'", "u@d.org", "address"),
        ("query = SELECT b FROM t WHERE a = '%u@%d'", "foo", None),
        ("query = SELECT b FROM t WHERE a LIKE '%%%1'", "x@org", "address"),
        ("query = SELECT '%s''s'", "foo", "foo's"),
        ("query = SELECT b FROM t WHERE a = '%s'\nresult_format = <%s>", "foo", "<bar>,<baz>"),
        ("query = SELECT b FROM t WHERE a = '%s'\ndomain = d.org", "foo", None),
        ("query = SELECT b FROM t WHERE a = '%s'\ndomain = d.org", "u@d.org", "address"),
        ("select_field = b\ntable = t\nwhere_field = a", "foo", "bar,baz"),
        (
            "select_field=b\ntable=t\nwhere_field=a\nadditional_conditions = and c > 1",
            "foo",
            "baz",
        ),
    ],
)
def test_lookup(tmp_path: Path, settings: str, key: str, value: str | None) -> None:
    table = make_table(tmp_path, settings)
    assert lookup_now(table, key) == value
    table.close()


def test_expansion_limit(tmp_path: Path) -> None:
    log = Recorder()
    table = make_table(tmp_path, "query = SELECT b FROM t WHERE a = '%s'\nexpansion_limit=1", log)
    assert lookup_now(table, "number") == "12"
    with pytest.raises(TableRetry, match="Expansion limit exceeded for key: 'foo'"):
        lookup_now(table, "foo")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    log = Recorder()
    table = make_table(tmp_path, "query = SELECT b FROM t WHERE a = '%s'", log)
    with pytest.raises(TableRetry, match="malformed UTF-8"):
        lookup_now(table, "blob")
    assert lookup_now(table, "\udcff") is None
    lenient = make_table(tmp_path, "query = SELECT b FROM t WHERE a = '%s'", log, utf8=False)
    assert lookup_now(lenient, "blob") == "\udcff"
    assert lookup_now(lenient, "\udcff") is None


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("query = SELECT b FROM nosuch WHERE a = '%s'", "no such table: nosuch"),
        ("query = SELECT b FROM t_%s", "outside of quotes"),
        ("query = INSERT INTO t (a) VALUES ('%s') RETURNING a", "readonly database"),
    ],
)
def test_query_fails(tmp_path: Path, settings: str, problem: str) -> None:
    log = Recorder()
    table = make_table(tmp_path, settings, log)
    with pytest.raises(TableRetry, match=f"table sqlite:{tmp_path}/x.cf lookup error: .*{problem}"):
        lookup_now(table, "o-o")
    assert problem in log.lines[0]
    assert log.lines[0].startswith(f"warning: sqlite:{tmp_path}/x.cf: query failed: ")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("query = SELECT '%x'", "invalid query template"),
        ("select_field = b", "table: must not be empty"),
        ("query = SELECT 1\ndbpath =", "dbpath: must not be empty"),
        ("query = SELECT 1\ndbpath = /nowhere/db", "Can't open database: No such file"),
        ("query = SELECT 1\ndbpath = /etc/passwd", "Can't open database: file is not a database"),
    ],
)
def test_cannot_be_opened(tmp_path: Path, settings: str, problem: str) -> None:
    with pytest.raises(TableConfigError, match=problem):
        make_table(tmp_path, settings)


def test_replaced_database(tmp_path: Path) -> None:
    table = make_table(tmp_path, "query = SELECT b FROM t WHERE a = '%s'")
    assert outdated() != f"{tmp_path}/db"
    make_database(tmp_path / "new", [("foo", "fresh", 1)])
    (tmp_path / "new").rename(tmp_path / "db")
    assert lookup_now(table, "foo") == "bar,baz"
    assert outdated() == f"{tmp_path}/db"
    (tmp_path / "db").unlink()
    assert outdated() == f"{tmp_path}/db"


def test_slow_query_runs_in_a_thread(tmp_path: Path) -> None:
    """One that takes many steps does not hold up the loop, and has the same answer."""
    count = (
        "query = WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 100000) SELECT count(*) FROM n WHERE '%s' <> 'x'"
    )
    table = make_table(tmp_path, count)

    async def run() -> tuple[str | None, int]:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        value = await table.lookup("foo")
        counting.cancel()
        return value, turns

    value, turns = asyncio.run(run())
    assert value == "100000"
    assert turns > 1
    table.close()


def test_locked_database_is_waited_for(tmp_path: Path) -> None:
    table = make_table(tmp_path, "query = SELECT b FROM t WHERE a = '%s'")
    writer = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE t SET b = 'later' WHERE a = 'foo'")

    async def run() -> str | None:
        lookup = asyncio.create_task(table.lookup("foo"))
        await asyncio.sleep(0)
        assert not lookup.done()
        finish = Thread(target=lambda: writer.execute("COMMIT"))
        finish.start()
        value = await lookup
        finish.join()
        return value

    assert asyncio.run(run()) == "later,later"
    writer.close()
    table.close()


def test_write_ahead_log(tmp_path: Path) -> None:
    make_database(tmp_path / "db")
    writer = sqlite3.connect(tmp_path / "db", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    table = make_table(tmp_path, "query = SELECT b FROM t WHERE a = '%s'")
    writer.execute("UPDATE t SET b = 'logged' WHERE a = 'number'")
    assert lookup_now(table, "number") == "logged"
    writer.close()


def test_daemon_lives_on(tmp_path: Path) -> None:
    log = Recorder()
    (tmp_path / "x.cf").write_text("dbpath = /nowhere/db\nquery = SELECT 1\n")
    table = open_with(f"sqlite:{tmp_path}/x.cf", TableOptions(log=log))
    with pytest.raises(TableRetry):
        lookup_now(table, "x")
    assert log.lines[0].startswith(f"error: sqlite:{tmp_path}/x.cf: Can't open database")


@given(key=st.text(min_size=1), other=st.text(min_size=1))
def test_every_key_is_only_a_key(key: str, other: str) -> None:
    """What is looked up is found; the query means the same whatever is in the key."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (a, b)")
    database.executemany("INSERT INTO t VALUES (?, ?)", [(key, "this"), (f"{other}x", "that")])
    for text in ("'%s'", '"%s"', "%s", "'%s' AND '%u' <> ''"):
        query = SqliteQuery("sqlite:x", f"SELECT b FROM t WHERE a = {text}")
        if query.takes(key):
            found = database.execute(*query.bind(key)).fetchall()
            assert found == ([("this",)] if key != f"{other}x" else [("this",), ("that",)])
    database.close()
