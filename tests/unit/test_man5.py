"""Pages of section 5: they name parameters that exist, and all that a client file may have."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from libmail.config.declared import all_parameters
from libmail.config.parameters.without_effect import NEVER
from libmail.tables.queries import client_file
from libmail.tables.registry import TABLE_TYPES, open_with
from libmail.tables.table import TableOptions
from tests.unit.libmail.tables.recorder import Recorder

MANUAL: Final = Path(__file__).resolve().parents[2] / "man"
PAGES: Final = MANUAL / "man5"
OF_THE_SYSTEM: Final = {"fcntl.2", "group.5", "passwd.5", "pcre2pattern.3", "regex.7"}
# What follows "Va" in a line: names and punctuation, up to another macro.
NAMES: Final = re.compile(r"^\.(?:\w\w )?Va ((?:(?![A-Z][a-z]\b)\S+ ?)+)", re.MULTILINE)

# A client file for each form of the query.
SETTINGS: Final[Mapping[str, Sequence[Mapping[str, str]]]] = {
    "ldap": [{"search_base": "dc=example"}],
    "memcache": [{}],
    "mongodb": [
        {"uri": "mongodb://h", "dbname": "d", "collection": "c", "query_filter": '{"a": "%s"}'}
    ],
    "mysql": [
        {"dbname": "d", "query": "SELECT '%s'"},
        {"dbname": "d", "select_field": "a", "table": "t", "where_field": "b"},
    ],
    "pgsql": [
        {"dbname": "d", "query": "SELECT '%s'"},
        {"dbname": "d", "select_field": "a", "table": "t", "where_field": "b"},
    ],
    "sqlite": [
        {"query": "SELECT '%s'"},
        {"select_field": "a", "table": "t", "where_field": "b"},
    ],
}

# Parameters of which a page says that they do nothing yet.
NOT_THERE: Final[dict[str, set[str]]] = {}
COMMON: Final = ("domain", "expansion_limit", "result_format")


class Settings(dict[str, str]):
    """The content of a client file that knows for what it was asked."""

    asked: set[str]

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)


@pytest.fixture(params=sorted(SETTINGS))
def kind(request: pytest.FixtureRequest) -> str:
    found = str(request.param)
    if found == "ldap":
        pytest.importorskip("ldap")  # packaging/make-venv fails in CI where it cannot be built
    return found


def described(kind: str) -> Iterator[str]:
    """The parameters with an entry in the page of a type."""
    text = (PAGES / f"{kind}_table.5").read_text("utf-8")
    for names in re.findall(r"^\.It Va (.*?)(?: Pq .*)?$", text, re.MULTILINE):
        yield from names.split(" , ")


def test_pages_describe_what_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.sqlite"
    sqlite3.connect(path).close()
    asked: set[str] = set()
    for values in SETTINGS[kind]:
        settings = Settings({"dbpath": str(path), **values})
        settings.asked = asked
        monkeypatch.setattr(client_file, "_read", lambda *_, settings=settings: settings)
        open_with(f"{kind}:/x.cf", TableOptions(strict=True, log=Recorder())).close()
    assert set(described(kind)) == asked


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.5")), ids=lambda page: page.name)
def test_parameters_exist(page: Path) -> None:
    used = {
        word
        for words in NAMES.findall(page.read_text("utf-8"))
        for word in words.split()
        if word[0].isalpha()
    }
    kind = page.name.removesuffix("_table.5")
    known = {*all_parameters(), *COMMON, *(described(kind) if kind in SETTINGS else ())}
    assert used - known == set()
    assert used & NEVER == NOT_THERE.get(page.name, set())


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.5")), ids=lambda page: page.name)
def test_pages_that_a_page_refers_to_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for name, section in re.findall(r"^\.Xr (\S+) (\d)", text, re.MULTILINE):
        there = (MANUAL / f"man{section}" / f"{name}.{section}").is_file()
        assert there or f"{name}.{section}" in OF_THE_SYSTEM, name


@pytest.mark.parametrize("kind", sorted(TABLE_TYPES))
def test_each_type_is_in_the_list(kind: str) -> None:
    text = (PAGES / "table_types.5").read_text("utf-8")
    assert re.search(rf"^\.It Cm .*\b{kind} ?:", text, re.MULTILINE), kind
