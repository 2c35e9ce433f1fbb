"""The small table types, and opening tables by their type:name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from libmail.config import open_config
from libmail.tables import (
    SequenceTable,
    TableConfigError,
    TableRetry,
    lookup_now,
    open_table,
    open_with,
)
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions
from tests.unit.libmail.tables.recorder import Recorder

LOOKUPS = [
    ("static:x", "any", "x"),
    ("static:{ two words }", "any", "two words"),
    ("inline:{x=y}", "X", "y"),
    ("inline:{ {x = a b}, z=1 }", "x", "a b"),
    ("inline:{ {x = a b}, z=1 }", "z", "1"),
    ("inline:{x=1, x=2}", "x", "2"),
    ("inline:{x=y}", "nothing", None),
    ("pipemap:{inline:{x=y},inline:{y=z}}", "x", "z"),
    ("pipemap:{inline:{x=y},inline:{q=z}}", "x", None),
    ("unionmap:{inline:{x=y},inline:{q=z},static:foo}", "x", "y,foo"),
    ("unionmap:{inline:{x=y},inline:{q=z}}", "none", None),
    ("randmap:{one}", "any", "one"),
    ("internal:x", "any", None),
    ("unix:passwd.byname", "no-such-user", None),
    ("debug:inline:{x=y}", "x", "y"),
    ("regexp:{{/a(.)c/ x$1},{/d/ e}}", "abc", "xb"),
    ("pcre:{{/a(?=.)(.)c/ x$1},{/d/ e}}", "abc", "xb"),
    ("cidr:{{10.0.0.0/8 ten},{::/0 six}}", "10.1.2.3", "ten"),
]


@pytest.mark.parametrize(("spec", "key", "want"), LOOKUPS)
def test_lookup(spec: str, key: str, want: str | None) -> None:
    assert lookup_now(open_table(spec, strict=True), key) == want


def test_system_accounts() -> None:
    line = lookup_now(open_table("unix:passwd.byname", strict=True), "root")
    assert line is not None
    assert line.startswith("root:")
    assert line.count(":") == 6
    group = lookup_now(open_table("unix:group.byname", strict=True), "root")
    assert group is not None
    assert group.startswith("root:")


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("lower_case", "value")
    assert lookup_now(open_table("environ:x"), "lower_case") == "value"


FATAL = [
    ("foo:bar", "unsupported dictionary type: foo"),
    ("static:", 'open dictionary: expecting "type:name" form instead of "static:"'),
    ("bare", 'open dictionary: expecting "type:name" form instead of "bare"'),
    ("lmdb:/nonexistent/x", "open database /nonexistent/x.lmdb: No such file or directory"),
    ("hash:/nonexistent/x", "open database /nonexistent/x.lmdb: No such file or directory"),
    ("texthash:/nonexistent/x", "open database /nonexistent/x: No such file or directory"),
    ("regexp:/nonexistent/x", "open /nonexistent/x: No such file or directory"),
    ("inline:x", 'bad syntax: "inline:x"; need "inline:{name=value...}"'),
    ("inline:{}", 'bad syntax: "inline:{}"; need "inline:{name=value...}"'),
    (
        "inline:{x}",
        'missing \'=\' after attribute name: "inline:{x}"; need "inline:{name=value...}"',
    ),
    ("pipemap:{x}", 'bad syntax: "pipemap:{x}"; need "pipemap:{type:name...}"'),
    ("unionmap:{x", 'bad syntax: "unionmap:{x"; need "unionmap:{type:name...}"'),
    ("randmap:{}", 'bad syntax: "randmap:{}"; need "randmap:{value...}"'),
    ("unix:foo", "unknown table: unix:foo"),
    ("regexp:{/a/ b}", "regexp map: no '{' at start of text in \"/a/\""),
]


@pytest.mark.parametrize(("spec", "text"), FATAL, ids=[case[0] for case in FATAL])
def test_a_command_stops_at_a_bad_table(spec: str, text: str) -> None:
    with pytest.raises(TableConfigError) as caught:
        open_table(spec, strict=True)
    assert str(caught.value) == text


def test_a_daemon_goes_on_with_a_table_that_answers_later() -> None:
    log = Recorder()
    table = open_table("foo:bar", log=log)
    with pytest.raises(TableRetry, match="table foo:bar lookup error: unsupported dictionary"):
        lookup_now(table, "x")
    assert log.lines == [
        "error: unsupported dictionary type: foo",
        "warning: foo:bar is unavailable. unsupported dictionary type: foo",
    ]


@pytest.mark.parametrize("spec", ["fail:x", "pipemap:{static:a,fail:x}", "unionmap:{fail:x}"])
def test_failure_is_never_absence(spec: str) -> None:
    with pytest.raises(TableRetry, match="lookup error: Application error"):
        lookup_now(open_table(spec), "key")


def test_key_that_is_not_utf8() -> None:
    log = Recorder()
    table = open_table("inline:{x=y}", log=log)
    assert lookup_now(table, "\udce9") is None
    assert log.lines == [
        'warning: inline:{x=y}: non-UTF-8 key "?": malformed UTF-8 or invalid codepoint'
    ]
    assert lookup_now(open_table("pcre:{{/^.$/ one}}", utf8=False), "\udce9") == "one"


def test_folding() -> None:
    assert lookup_now(open_table("inline:{é=1}"), "É") == "1"
    assert lookup_now(open_table("inline:{é=1}", utf8=False), "É") is None
    assert lookup_now(open_table("inline:{k=1}", fold=False), "K") is None


def test_listing() -> None:
    table = open_table("inline:{b=1, A=2}")
    assert isinstance(table, SequenceTable)
    assert list(table.entries()) == [("b", "1"), ("a", "2")]
    assert not isinstance(open_table("static:x"), SequenceTable)


@pytest.mark.parametrize("spec", ["regexp:/nonexistent/x", "texthash:/nonexistent/x", "foo:x"])
def test_daemon_table_open_error_is_fatal(tmp_path: Path, spec: str) -> None:
    options = of_daemon(tmp_path, "daemon_table_open_error_is_fatal = yes\n")
    with pytest.raises(TableConfigError):
        open_with(spec, options)
    with pytest.raises(TableConfigError):
        StringList("mydestination", (f"{tmp_path}/nowhere", spec), options)
    with pytest.raises(TableRetry):
        lookup_now(open_with(spec, replace(of_daemon(tmp_path, ""), log=Recorder())), "key")


def of_daemon(folder: Path, main: str) -> TableOptions:
    (folder / "main.cf").write_text(main)
    return TableOptions.of(open_config(str(folder)))
