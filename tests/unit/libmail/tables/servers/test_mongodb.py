"""mongodb: tables: queries, results, and a conversation with a server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tables.servers.mongodb import Filter, open_named, results
from libmail.tables.table import TableConfigError, TableOptions, TableRetry, lookup_now
from tests.mongo_server import MongoServer
from tests.unit.libmail.tables.recorder import Recorder

SPEC = "mongodb:/x.cf"
FILTER = '{"$or": [{"username": "%s"}, {"user": "%u", "domain": "%d"}], "active": 1}'
DOCUMENTS = [
    {"_id": 1, "username": "foo", "active": 1, "goto": ["bar", "baz"], "uid": 7, "more": {"a": 1}},
    {"_id": 2, "username": "foo", "active": 1, "goto": "third"},
    {"_id": 3, "username": "old", "active": 0, "goto": "nowhere"},
    {"_id": 4, "user": 'o"x', "domain": "d.org", "active": 1, "goto": "quote", "flag": True},
]


def test_query() -> None:
    assert Filter(SPEC, FILTER).query('o"x@d.org') == {
        "$or": [{"username": 'o"x@d.org'}, {"user": 'o"x', "domain": "d.org"}],
        "active": 1,
    }
    text = '{"a%%b": ["x-%1", 2.5, true, null], "c": {"$gt": {"$numberLong": "7"}}}'
    assert Filter(SPEC, text).query("u@d.org") == {
        "a%b": ["x-org", 2.5, True, None],
        "c": {"$gt": 7},
    }
    assert Filter(SPEC, FILTER).takes("a@b")
    assert not Filter(SPEC, FILTER).takes("a")


@given(st.text(min_size=1))
def test_a_key_is_only_a_string(key: str) -> None:
    query = Filter(SPEC, '{"a": "%s", "b": {"$in": ["<%s>"]}}').query(key)
    assert query == {"a": key, "b": {"$in": [f"<{key}>"]}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": %s}', "is not JSON"),
        ('["%s"]', "is not a JSON object"),
        ('{"%s": 1}', "name of a field"),
        ('{"$where": "this.a == \'%s\'"}', r"\$where is not supported"),
        ('{"a": "%x"}', "invalid query_filter template"),
    ],
)
def test_bad_queries(text: str, problem: str) -> None:
    with pytest.raises(TableConfigError, match=problem):
        Filter(SPEC, text)


def test_results() -> None:
    ignored: list[str] = []
    document = {"_id": "x", "a": "b", "c": [1, ["d"], {"e": "f"}], "g": True, "h": None, "i": 1.5}
    assert list(results(document, ignored.append)) == ["b", "1", "d"]
    assert ignored == ["c (dict)", "g (bool)", "i (float)"]


def client_file(tmp_path: Path, port: int, *lines: str) -> str:
    text = "\n".join([f"uri = mongodb://127.0.0.1:{port}/", "dbname = mail", *lines, ""])
    (tmp_path / "x.cf").write_text(text)
    return f"{tmp_path}/x.cf"


def test_lookup(tmp_path: Path) -> None:
    usual = ["collection = box", f"query_filter = {FILTER}".replace("%u", "%s")]
    with MongoServer(DOCUMENTS) as server:
        log = Recorder()
        path = client_file(tmp_path, server.port, *usual, "result_attribute = goto, uid")
        table = open_named("mongodb", path, TableOptions(log=log))
        assert lookup_now(table, "foo@d") is None
        table.close()
        path = client_file(
            tmp_path,
            server.port,
            "collection = box",
            'query_filter = {"username": "%s", "active": 1}',
            'projection = {"goto": 1, "uid": 1, "more": 1}',
            "result_format = <%s>",
        )
        table = open_named("mongodb", path, TableOptions(log=log))

        async def run() -> str | None:
            return await table.lookup("FOO")

        assert asyncio.run(run()) == "<bar>,<baz>,<7>,<third>"
        assert log.lines == [
            f"warning: mongodb:{path}: ignoring field more (dict) in the result for foo"
        ]
        table.close()
        assert server.filters[-1] == {"username": "foo", "active": 1}


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Recorder()
    lines = ["collection = box", 'query_filter = {"fail": "%s"}', "result_attribute = goto"]
    with MongoServer([]) as server:
        path = client_file(tmp_path, server.port, *lines)
        table = open_named("mongodb", path, TableOptions(log=log))
        with pytest.raises(TableRetry, match=f"table mongodb:{path} lookup error: it fails"):
            lookup_now(table, "x")
        table.close()
    monkeypatch.setattr("libmail.tables.servers.mongodb._CONNECT_TIMEOUT", 200)
    table = open_named("mongodb", path, TableOptions(log=log))
    with pytest.raises(TableRetry, match=f"table mongodb:{path} lookup error: "):
        lookup_now(table, "x")
    assert len(log.lines) == 2
    assert log.lines[1].startswith(f"warning: mongodb:{path}: query failed: ")
    table.close()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["uri ="], "uri: must not be empty"),
        (["uri = mongodb://h:port/"], "uri: "),
        (["dbname ="], "dbname: must not be empty"),
        (["projection = {}", "result_attribute = x"], "both projection and result_attribute"),
        (["projection = x"], "projection is not JSON"),
        (["projection = []"], "projection is not a JSON object"),
    ],
)
def test_bad_client_files(tmp_path: Path, lines: list[str], problem: str) -> None:
    usual = ["collection = c", "query_filter = " + json.dumps({"a": "%s"})]
    path = client_file(tmp_path, 1, *usual, *lines)
    with pytest.raises(TableConfigError, match=problem):
        open_named("mongodb", path, TableOptions(log=Recorder()))
