"""Templates of queries and results: mysql_table(5), ldap_table(5), memcache_table(5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tables.queries.templates import ResultFormat, Template
from libmail.tables.table import TableConfigError, TableRetry
from tests.unit.libmail.tables.recorder import Recorder

SPEC = "sqlite:/etc/postfix/x.cf"
FULL = "Jo.Doe@mail.example.com"


def quoted(text: str) -> str:
    return "<" + text.replace("'", "''") + ">"


@pytest.mark.parametrize(
    ("text", "key", "query"),
    [
        ("all of it", FULL, "all of it"),
        ("", FULL, ""),
        ("'%s'", "o'hara@x", "'<o''hara@x>'"),
        ("%s", "user", "<user>"),
        ("100%% %s", "user", "100% <user>"),
        ("%u at %d", FULL, "<Jo.Doe> at <mail.example.com>"),
        ("%U at %D is %S", FULL, f"<Jo.Doe> at <mail.example.com> is <{FULL}>"),
        ("%u", "user", "<user>"),
        ("%u", "@example.com", None),
        ("%u", "user@", "<user>"),
        ("%u", "a@b@example.com", "<a@b>"),
        ("%d", "user", None),
        ("%d", "user@", None),
        ("%d", "example.com", None),
        ("%d", "@example.com", "<example.com>"),
        ("%3.%2.%1", FULL, "<mail>.<example>.<com>"),
        ("%4", FULL, None),
        ("%1", "example.com", None),
        ("%1", "user@com", "<com>"),
        ("%2", "user@a..com.", "<a>"),
        ("%s", "", None),
    ],
)
def test_query(text: str, key: str, query: str | None) -> None:
    assert Template(SPEC, "query", text).query(key, quoted) == query


@pytest.mark.parametrize("text", ["%", "x%", "%x", "%0", "% s", "%%%", "%\n"])
def test_bad_template(text: str) -> None:
    with pytest.raises(TableConfigError, match="invalid query template"):
        Template(SPEC, "query", text)


@pytest.mark.parametrize(
    ("text", "key", "value", "result"),
    [
        ("%s", "key", "value", "value"),
        ("smtp:[%s]", "key", "host", "smtp:[host]"),
        ("%u", "key", "user@example.com", "user"),
        ("%u", "key", "user", "user"),
        ("%u", "key", "@example.com", None),
        ("%d", "key", "user@example.com", "example.com"),
        ("%d", "key", "user", None),
        ("%s for %S", "key", "value", "value for key"),
        ("%u@%D", "a@b.c", "d@e.f", "d@b.c"),
        ("%U@%d", "a@b.c", "d@e.f", "a@e.f"),
        ("%1.%2", "a@b.c", "d@e.f", "c.b"),
        ("%D", "a", "d@e.f", None),
        ("%%", "a", "d@e.f", "%"),
    ],
)
def test_result(text: str, key: str, value: str, result: str | None) -> None:
    assert ResultFormat(SPEC, text).join(key, [value]) == result


@pytest.mark.parametrize(
    ("text", "key", "takes"),
    [
        ("%s%u%d", "user", True),
        ("%S", "user", True),
        ("%U", "user", True),
        ("%U", "@example.com", False),
        ("%D", "user", False),
        ("%D", "user@example.com", True),
        ("%2", "user@example.com", True),
        ("%3", "user@example.com", False),
        ("%%%s", "user", True),
    ],
)
def test_result_format_takes(text: str, key: str, takes: bool) -> None:
    assert ResultFormat(SPEC, text).takes(key) is takes


def test_many_results() -> None:
    log = Recorder()
    results = ResultFormat(SPEC, "%u", 0, log)
    assert results.join("k", ["a@x", "@skipped", "b@x", "", "c"]) == "a,b,c"
    assert log.lines == [f'warning: table "{SPEC}": empty lookup result for: "k" -- ignored']
    assert results.join("k", []) is None
    assert results.join("k", ["@skipped"]) is None


def test_expansion_limit() -> None:
    log = Recorder()
    results = ResultFormat(SPEC, "%u", 2, log)
    assert results.join("k", ["a", "@skipped", "b"]) == "a,b"
    with pytest.raises(TableRetry, match=f"table {SPEC} lookup error: Expansion limit exceeded"):
        results.join("k", iter("abc"))
    assert log.lines == [f"warning: {SPEC}: Expansion limit exceeded for key: 'k'"]


def hexed(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").hex()


@given(st.text(alphabet="%sudSUD19x'", max_size=12), st.text(alphabet="ab@.'\"\\%\0é", max_size=12))
def test_keys_stay_inside_their_quotes(text: str, key: str) -> None:
    try:
        template = Template(SPEC, "query", text)
    except TableConfigError:
        return
    query = template.query(key, hexed)
    if query is not None:
        assert set(query) <= set("".join(template.pieces[::2])) | set("%0123456789abcdef")
