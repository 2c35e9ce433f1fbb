"""Query templates in SQL: where a key goes, and how it is kept from becoming part of the query.

Called by: the sqlite, mysql and pgsql tables. Without I/O.

mysql_table(5) and its kin have the administrator write the quotes: `WHERE mailbox = '%s'`. So the
template is cut up once, when the table is opened, to know in what each key will stand: text of a
string, which the driver escapes or binds as a parameter, or anything else, where no escaping
helps and only harmless keys are let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import groupby
from typing import Final

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.templates import Quote, Template

__all__ = [
    "Dialect",
    "Fragment",
    "Place",
    "SqlTemplate",
    "UnsafeKey",
    "harmless",
    "query_text",
    "tokens",
]


class UnsafeKey(ValueError):
    """The key cannot stand where the query has it. `str()` says why."""


class Dialect(Enum):
    """Whose SQL it is: they differ in what a string is."""

    SQLITE = auto()
    MYSQL = auto()
    PGSQL = auto()


class Place(Enum):
    """What a key is part of."""

    STRING = auto()  # '...'
    ESCAPES = auto()  # E'...': a string in which PostgreSQL gives backslashes a meaning
    NAME = auto()  # an identifier in quotes, a comment
    WORD = auto()  # a word that is longer than the key
    ALONE = auto()  # between spaces, operators, commas


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a query with the letters that it takes from the key.

    A string with letters is a fragment of its own; text and template have its quotes.
    """

    place: Place
    text: str
    template: Template


_PLAIN: Final = r"'(?:[^']|'')*'"
_BACKSLASHES: Final = r"'(?:[^'\\]|\\.|'')*'"
_IDENTIFIER: Final = r'"(?:[^"]|"")*"|`[^`]*`'
_COMMENT: Final = r"--[^\n]*|/\*.*?\*/"
_WORD: Final = r"(?:%[sudSUD1-9]|\w)+"

_TOKENS: Final = {
    Dialect.SQLITE: rf"(?P<string>{_PLAIN}|\"(?:[^\"]|\"\")*\")"
    rf"|(?P<name>`[^`]*`|\[[^]]*\]|{_COMMENT})|(?P<word>{_WORD})|%%|.",
    Dialect.MYSQL: rf"(?P<string>{_BACKSLASHES}|{_BACKSLASHES.replace(chr(39), chr(34))})"
    rf"|(?P<name>`[^`]*`|{_COMMENT}|\#[^\n]*)|(?P<word>{_WORD})|%%|.",
    Dialect.PGSQL: rf"(?P<escapes>(?:[eE]|[uU]&){_BACKSLASHES})|(?P<string>{_PLAIN})"
    rf"|(?P<name>{_IDENTIFIER}|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|{_COMMENT})"
    rf"|(?P<word>{_WORD})|%%|.",
}
_PATTERNS: Final = {
    dialect: re.compile(pattern, re.DOTALL | re.ASCII) for dialect, pattern in _TOKENS.items()
}
_PLACES: Final = {
    "string": Place.STRING,
    "escapes": Place.ESCAPES,
    "name": Place.NAME,
    "word": Place.WORD,
}

_WHOLE_KEY: Final = frozenset("sS")

# A word alone could be the name of a column or of a constant; a number is only a number.
_HARMLESS: Final = {
    Place.NAME: re.compile(r"[A-Za-z0-9_.@+=-]+"),
    Place.WORD: re.compile(r"[A-Za-z0-9_]+"),
    Place.ALONE: re.compile(r"[0-9]+"),
}


def tokens(text: str, dialect: Dialect) -> Iterator[tuple[Place, str]]:
    """Give the words and strings of a template, and all between them, in order."""
    for match in _PATTERNS[dialect].finditer(text):
        token = match.group()
        place = _PLACES.get(match.lastgroup or "", Place.ALONE)
        if place is Place.WORD and len(token) == 2 and token[0] == "%":
            place = Place.ALONE
        yield place, token


def _merged(tokens: Iterable[tuple[Place, str]]) -> Iterator[tuple[Place, str]]:
    """Give the tokens with letters, and what is between them in one piece."""
    for plain, group in groupby(tokens, lambda token: "%" not in token[1].replace("%%", "")):
        if plain:
            yield Place.ALONE, "".join(text for _, text in group)
        else:
            yield from group


class SqlTemplate:
    """A query template of one dialect."""

    def __init__(self, spec: str, text: str, dialect: Dialect) -> None:
        """spec: the table's, for messages. Raises TableConfigError."""
        self._whole: Final = Template(spec, "query", text)
        self.fragments: Final = tuple(
            Fragment(place, token, Template(spec, "query", token))
            for place, token in _merged(tokens(text, dialect))
        )

    def takes(self, key: str) -> bool:
        """Whether the key has all that the query wants of it."""
        return self._whole.letters <= _WHOLE_KEY or self._whole.query(key) is not None

    def query(self, key: str, quote: Quote, quote_escapes: Quote | None = None) -> str:
        """The query for a key that it takes.

        quote: escapes text for a string; quote_escapes: for one with backslashes.
        Raises UnsafeKey.
        """
        quotes = {Place.STRING: quote, Place.ESCAPES: quote_escapes or quote}
        return "".join(
            one.template.query(key, quotes.get(one.place) or partial(harmless, one.place)) or ""
            for one in self.fragments
        )


def harmless(place: Place, part: str) -> str:
    """The part of a key, if it can do no harm in a place without escaping. Raises UnsafeKey."""
    if _HARMLESS[place].fullmatch(part) is None:
        raise UnsafeKey("the query has the key outside of quotes, where it is not safe")
    return part


def query_text(client: ClientFile, *, functions: bool = False) -> str:
    """The query template of a client file, which may be in one of the older forms.

    functions: `select_function` is known (pgsql). Raises TableConfigError.
    """
    query = client.text("query")
    if query:
        return query
    function = client.text("select_function") if functions else ""
    if function:
        return f"SELECT {function}('%s')"
    select, table, where = (
        client.text(name, required=True) for name in ("select_field", "table", "where_field")
    )
    return (
        f"SELECT {select} FROM {table} WHERE {where} = '%s' {client.text('additional_conditions')}"
    )
