"""Tables behind servers: what can be said of their client files without a server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from libmail.tables.registry import TABLE_TYPES, open_with
from libmail.tables.table import Table, TableConfigError, TableOptions, TableRetry, lookup_now
from tests.unit.libmail.tables.recorder import Recorder

SQL = "dbname = mail\nquery = SELECT a FROM b WHERE c = '%s'\n"
PACKAGES = {
    "mysql": ("pymysql", "libmail.tables.sql.mysql"),
    "pgsql": ("psycopg", "libmail.tables.sql.pgsql"),
    "ldap": ("ldap", "libmail.tables.servers.ldap_client"),
    "mongodb": ("bson", "libmail.tables.servers.mongodb"),
}


def need_driver(kind: str) -> None:
    """Skip where nothing is there to build python-ldap; packaging/make-venv fails in CI then."""
    if kind == "ldap":
        pytest.importorskip("ldap")


def opened(tmp_path: Path, kind: str, text: str, log: Recorder | None = None) -> Table:
    need_driver(kind)
    (tmp_path / "x.cf").write_text(text)
    options = TableOptions(strict=True, log=log or Recorder())
    return open_with(f"{kind}:{tmp_path}/x.cf", options)


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("mysql", "query = SELECT 1", "dbname: must not be empty"),
        ("mysql", "dbname = x", "select_field: must not be empty"),
        ("mysql", SQL + "charset = klingon", "unknown charset: klingon"),
        ("mysql", SQL + "option_file = /proc/self/mem", "open /proc/self/mem: "),
        ("mysql", SQL + "tls_CAfile = /nowhere/ca", "TLS files: "),
        ("mysql", SQL + "require_result_set = maybe", "require_result_set = maybe"),
        ("mysql", SQL + "retry_interval = soon", "retry_interval"),
        ("pgsql", "query = SELECT 1", "dbname: must not be empty"),
        ("pgsql", SQL + "encoding = klingon", "unknown encoding: klingon"),
        ("pgsql", SQL + "hosts = postgresql://h/d?nonsense=1", "bad host"),
        ("pgsql", "dbname = x\nselect_field = y", "table: must not be empty"),
        ("ldap", "query_filter = (x=%y)", "invalid query_filter template"),
        ("ldap", "bind = perhaps", "bad bind: perhaps"),
        ("ldap", "version = 4", "version parameter value 4"),
        ("ldap", "dereference = 4", "dereference parameter value 4"),
        ("ldap", "recursion_limit = 0", "recursion_limit parameter value 0"),
    ],
)
def test_bad_client_files(tmp_path: Path, kind: str, text: str, problem: str) -> None:
    with pytest.raises(TableConfigError, match=problem):
        opened(tmp_path, kind, text)


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "WIN1252", "KOI8R", "EUC_JP", "SQL_ASCII"])
def test_encodings_of_pgsql(tmp_path: Path, encoding: str) -> None:
    opened(tmp_path, "pgsql", f"{SQL}encoding = {encoding}").close()


def test_uri_needs_no_database(tmp_path: Path) -> None:
    opened(tmp_path, "pgsql", "hosts = postgresql://h/d postgres://h\nquery = SELECT 1").close()


def test_old_ldap_settings(tmp_path: Path) -> None:
    log = Recorder()
    opened(tmp_path, "ldap", "cache = yes\nscope = all\nresult_filter = <%s>", log).close()
    assert [line.partition("x.cf")[2] for line in log.lines] == [
        " ignoring cache",
        ": Unrecognized value all specified for scope; using sub",
    ]


@pytest.mark.parametrize("kind", ["mysql", "pgsql", "ldap"])
def test_what_needs_no_server(tmp_path: Path, kind: str) -> None:
    """A key that the query cannot be made of is in no table, without asking anybody."""
    text = "hosts = unix:/nowhere\nserver_host = ldapi://%2Fnowhere\ndomain = example.org\n"
    text += SQL.replace("%s", "%u@%d") + "query_filter = (mail=%u@%d)\n"
    table = opened(tmp_path, kind, text)
    for key in ("user", "@example.org", "user@example.net", "\0@example.org", "\udcff@example.org"):
        assert lookup_now(table, key) is None
    table.close()


@pytest.mark.parametrize(
    ("kind", "warning"),
    [
        ("mysql", "connect to mysql server 127.0.0.1:1: Can't connect to MySQL server on "),
        ("pgsql", "connect to pgsql server /nowhere: "),
        ("ldap", "dict_ldap_connect: Unable to bind to server ldapi://%2Fnowhere with dn empty"),
    ],
)
def test_no_server(tmp_path: Path, kind: str, warning: str) -> None:
    log = Recorder()
    host = "inet:127.0.0.1:1" if kind == "mysql" else "unix:/nowhere"
    text = f"hosts = {host}\nserver_host = ldapi://%2Fnowhere\n{SQL}"
    table = opened(tmp_path, kind, text, log)
    with pytest.raises(TableRetry, match=f"^table {kind}:{tmp_path}/x.cf lookup error: "):
        lookup_now(table, "user")
    assert log.lines[0].startswith(f"warning: {warning}")
    table.close()


@pytest.mark.parametrize("kind", sorted(PACKAGES))
def test_missing_package(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = PACKAGES[kind]
    drivers = TABLE_TYPES[kind], module
    for name in list(sys.modules):
        if name in (package, *drivers) or name.startswith(f"{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TableConfigError, match=f"unsupported dictionary type: {kind}. Is the pack"):
        open_with(f"{kind}:{tmp_path}/x.cf", TableOptions(strict=True))
    log = Recorder()
    table = open_with(f"{kind}:{tmp_path}/x.cf", TableOptions(log=log))
    assert len(log.lines) == 1
    assert log.lines[0].startswith("error: unsupported")
    with pytest.raises(TableRetry, match="unsupported dictionary type"):
        lookup_now(table, "x")
