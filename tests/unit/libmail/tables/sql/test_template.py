"""Query templates in SQL: where a key stands, and that it stays there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tables.sql.template import Dialect, Place, SqlTemplate, UnsafeKey, tokens
from libmail.tables.table import TableConfigError

SPEC = "mysql:/x.cf"

PLACES = [
    ("SELECT a FROM b WHERE c = '%s'", Dialect.MYSQL, [Place.STRING]),
    ('SELECT a FROM b WHERE c = "%s"', Dialect.MYSQL, [Place.STRING]),
    ('SELECT a FROM b WHERE c = "%s"', Dialect.PGSQL, [Place.NAME]),
    ("SELECT a FROM b WHERE c = E'%s'", Dialect.PGSQL, [Place.ESCAPES]),
    ("SELECT a FROM b WHERE c = E'%s'", Dialect.MYSQL, [Place.STRING]),
    ("SELECT a FROM b WHERE c = $x$%s$x$", Dialect.PGSQL, [Place.NAME]),
    ("SELECT a FROM `%d` WHERE c = '%u'", Dialect.MYSQL, [Place.NAME, Place.STRING]),
    ("SELECT a FROM b_%1 WHERE c=%2", Dialect.MYSQL, [Place.WORD, Place.ALONE]),
    ("SELECT a -- it's %s\nFROM b WHERE c='%s'", Dialect.MYSQL, [Place.NAME, Place.STRING]),
    ("SELECT 'it''s %s' WHERE '\\'%s'", Dialect.MYSQL, [Place.STRING, Place.STRING]),
    ("SELECT 'a\\', '%s', 'b'", Dialect.PGSQL, [Place.STRING]),
    ("SELECT 'a%%', '%s%%', b LIKE '%%%u'", Dialect.SQLITE, [Place.STRING, Place.STRING]),
    ("SELECT a FROM [%d] WHERE c = 'x", Dialect.SQLITE, [Place.NAME]),
]


@pytest.mark.parametrize(("text", "dialect", "places"), PLACES, ids=[one[0] for one in PLACES])
def test_places(text: str, dialect: Dialect, places: list[Place]) -> None:
    template = SqlTemplate(SPEC, text, dialect)
    assert [one.place for one in template.fragments if one.template.letters] == places
    assert "".join(one.text for one in template.fragments) == text


def test_query() -> None:
    template = SqlTemplate(SPEC, "SELECT '%s', '%u%%', %1 FROM t_%2", Dialect.MYSQL)
    assert template.takes("o'x@ab.12")
    assert not template.takes("o'x")
    assert not template.takes("o'x@12")
    query = template.query("o'x@ab.12", lambda part: part.replace("'", "\\'"))
    assert query == "SELECT 'o\\'x@ab.12', 'o\\'x%', 12 FROM t_ab"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("SELECT a FROM b WHERE c = %s", "d"),
        ("SELECT a FROM b WHERE c = %s", "1 OR 1"),
        ("SELECT a FROM b WHERE c = %s", "-1"),
        ("SELECT a FROM t_%s", "x;drop"),
        ("SELECT a FROM `%s`", "x`y"),
        ("SELECT a -- %s", "x\ny"),
    ],
)
def test_unsafe_keys(text: str, key: str) -> None:
    template = SqlTemplate(SPEC, text, Dialect.MYSQL)
    assert template.takes(key)
    with pytest.raises(UnsafeKey, match="outside of quotes"):
        template.query(key, str)


def test_bad_letter() -> None:
    with pytest.raises(TableConfigError, match="invalid query template: SELECT '%x'"):
        SqlTemplate(SPEC, "SELECT '%x'", Dialect.MYSQL)


TEMPLATES = [text for text, _, _ in PLACES]


def backslashes(part: str) -> str:
    return part.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"')


def doubled(part: str) -> str:
    return part.replace("'", "''")


@given(st.sampled_from(TEMPLATES), st.text(), st.sampled_from([Dialect.MYSQL, Dialect.PGSQL]))
def test_no_key_changes_the_query(text: str, key: str, dialect: Dialect) -> None:
    """Cut up again, the query has the same pieces as the template."""
    template = SqlTemplate(SPEC, text, dialect)
    key = f"{key}@example.org"
    quote = backslashes if dialect is Dialect.MYSQL else doubled
    try:
        query = template.query(key, quote, backslashes)
    except UnsafeKey:
        return
    if template.takes(key):
        again = SqlTemplate(SPEC, query.replace("%", "%%"), dialect)
        plain = SqlTemplate(SPEC, template.query("1@2.3", quote).replace("%", "%%"), dialect)
        assert shape(again, dialect) == shape(plain, dialect)


def shape(template: SqlTemplate, dialect: Dialect) -> list[Place]:
    text = "".join(one.text for one in template.fragments)
    return [place for place, _ in tokens(text, dialect)]
