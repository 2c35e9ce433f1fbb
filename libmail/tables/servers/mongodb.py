"""mongodb:/file - MongoDB, mongodb_table(5). Through pymongo, in a thread.

The query is parsed once, when the table is opened, and keys are put into its strings: so whatever
they contain, they are part of a string.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.query_table import QueryTable
from libmail.tables.queries.templates import Template
from libmail.tables.table import Log, TableConfigError, TableFailed, TableOptions
from libmail.tables.worker import Worker

try:
    # What pymongo imports late, a process in a jail has to have already.
    import bson.json_util
    import pymongo
    import pymongo.errors
    import pymongo.uri_parser
    from bson.errors import BSONError
    from pymongo.errors import PyMongoError
except ImportError as error:
    raise TableConfigError(
        "unsupported dictionary type: mongodb. Is the package python3-pymongo installed "
        "(pymongo in PyPI)?"
    ) from error

__all__ = ["Filter", "open_named", "results"]

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | float | bool | None"
_Client: TypeAlias = "pymongo.MongoClient[dict[str, object]]"

_CONNECT_TIMEOUT: Final = 10_000  # milliseconds
_QUERY_TIMEOUT: Final = 30_000  # milliseconds
_SCRIPTS: Final = frozenset({"$where", "$function", "$accumulator"})


class Filter:
    """A query template."""

    def __init__(self, spec: str, text: str) -> None:
        """Raises TableConfigError."""
        self._spec = spec
        self._wants = Template(spec, "query_filter", text)
        self._fill = self._filler(_json_object(spec, "query_filter", text))

    def _filler(self, node: Json) -> Callable[[str], Json]:
        """A function that puts a key into all strings of a part of the query."""
        if isinstance(node, str):
            template = Template(self._spec, "query_filter", node)
            return lambda key: template.query(key) or ""
        if isinstance(node, Mapping):
            fields = {self._name(name): self._filler(value) for name, value in node.items()}
            return lambda key: {name: fill(key) for name, fill in fields.items()}
        if isinstance(node, Sequence):
            items = [self._filler(value) for value in node]
            return lambda key: [fill(key) for fill in items]
        return lambda _: node

    def _name(self, text: str) -> str:
        template = Template(self._spec, "query_filter", text)
        if template.letters:
            raise TableConfigError(
                f"{self._spec}: query_filter: key in the name of a field: {text}"
            )
        if text in _SCRIPTS and self._wants.letters:
            # There is no way to keep a key from becoming part of a program.
            raise TableConfigError(f"{self._spec}: query_filter: {text} is not supported")
        return template.query("") or ""

    def takes(self, key: str) -> bool:
        """Whether the key has all that the query wants of it."""
        return self._wants.query(key) is not None

    def query(self, key: str) -> Mapping[str, object]:
        """The query for a key that it takes."""
        # Extended JSON: {"$oid": ...} and the like are values of types that JSON does not have.
        filled: dict[str, object] = bson.json_util.loads(json.dumps(self._fill(key)))
        return filled


def results(document: Mapping[str, object], ignored: Callable[[str], object]) -> Iterator[str]:
    """Give the results in a document: strings and whole numbers, also in arrays.

    ignored: called with the name and type of what is neither.
    """
    for name, value in document.items():
        if name != "_id":
            yield from _values(name, value, ignored)


def _values(name: str, value: object, ignored: Callable[[str], object]) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, list):
        for one in value:
            yield from _values(name, one, ignored)
    elif value is not None:
        ignored(f"{name} ({type(value).__name__})")


def _projection(client: ClientFile) -> Mapping[str, object] | None:
    """The fields to ask for; None for all. Raises TableConfigError."""
    text = client.text("projection")
    names = client.text("result_attribute").replace(",", " ").split()
    if text and names:
        raise TableConfigError(f"{client.spec}: both projection and result_attribute are set")
    if not text:
        return {**dict.fromkeys(names, 1), "_id": 0} if names else None
    return {**_json_object(client.spec, "projection", text), "_id": 0}


def _json_object(spec: str, name: str, text: str) -> dict[str, Json]:
    """The value of a parameter. Raises TableConfigError."""
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise TableConfigError(f"{spec}: {name} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise TableConfigError(f"{spec}: {name} is not a JSON object")
    return parsed


class _Asker:
    """Asks the query of a table."""

    def __init__(self, client: ClientFile, log: Log) -> None:
        """Raises TableConfigError."""
        self._spec = client.spec
        self._database = client.text("dbname", required=True)
        self._collection = client.text("collection", required=True)
        self._filter = Filter(client.spec, client.text("query_filter", required=True))
        self._projection = _projection(client)
        self._log = log
        self.takes: Final = self._filter.takes

    def ask(self, client: _Client, key: str) -> Sequence[str]:
        """The results for a key. Raises TableRetry."""
        try:
            collection = client[self._database][self._collection]
            found = list(collection.find(self._filter.query(key), self._projection))
        except (PyMongoError, BSONError, ValueError, TypeError) as error:
            reason = str(error).partition(", Timeout:")[0]
            self._log.warning(f"{self._spec}: query failed: {reason}")
            raise TableFailed(self._spec, reason) from error

        def ignored(what: str) -> None:
            self._log.warning(f"{self._spec}: ignoring field {what} in the result for {key}")

        return [value for document in found for value in results(document, ignored)]


def open_named(kind: str, name: str, options: TableOptions) -> QueryTable[_Client]:
    """Open `mongodb:name`; raises TableConfigError."""
    client = ClientFile(kind, name, options)
    uri = client.text("uri", required=True)
    asker = _Asker(client, options.log)
    if uri.startswith("mongodb://"):  # others are looked up in DNS to be parsed
        try:
            pymongo.uri_parser.parse_uri(uri)
        except (PyMongoError, ValueError) as error:
            raise TableConfigError(f"{client.spec}: uri: {error}") from error

    def start() -> _Client:
        try:
            return pymongo.MongoClient(
                uri,
                connectTimeoutMS=_CONNECT_TIMEOUT,
                serverSelectionTimeoutMS=_CONNECT_TIMEOUT,
                socketTimeoutMS=_QUERY_TIMEOUT,
            )
        except (PyMongoError, ValueError) as error:
            options.log.warning(f"{client.spec}: {error}")
            raise TableFailed(client.spec, str(error)) from error

    worker: Worker[_Client] = Worker(client.spec, start, lambda connected: connected.close())
    return QueryTable(client, options, worker, asker.takes, asker.ask)
