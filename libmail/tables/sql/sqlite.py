"""sqlite:/file - a local database, sqlite_table(5). Read-only, through the sqlite3 module.

Keys are bound as parameters, not pasted into the text of the query. A query that SQLite answers at
once runs where it is asked for; one that takes long, or meets a writer who has the database
locked, starts again in a thread, so that the process goes on with its other work.

The database is opened with the table, before the jail. If another file takes its name, the process
is to be replaced.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar
from urllib.parse import quote
from weakref import finalize

from libmail.files.freshness import register
from libmail.files.safe_open import safe_open
from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.query_table import QueryTable
from libmail.tables.queries.templates import Template
from libmail.tables.sql.template import (
    Dialect,
    Place,
    SqlTemplate,
    UnsafeKey,
    harmless,
    query_text,
)
from libmail.tables.table import Log, TableConfigError, TableFailed, TableOptions
from libmail.tables.worker import Worker

__all__ = ["SqliteQuery", "open_named"]

_BUDGET: Final = 10_000  # steps of SQLite's machine, well below a millisecond
_BUSY: Final = 10.0  # seconds to wait for a writer, in the thread
_SLOW: Final = 30  # seconds a query may take, in the thread
_LATER: Final = frozenset({sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

R = TypeVar("R")


class SqliteQuery:
    """The query of a table, with parameters in place of strings."""

    def __init__(self, spec: str, text: str) -> None:
        """text: the template, as in the client file. Raises TableConfigError."""
        self._whole = SqlTemplate(spec, text, Dialect.SQLITE)
        self._pieces: list[tuple[Place, Template]] = []
        for fragment in self._whole.fragments:
            place, template = fragment.place, fragment.template
            if place is Place.STRING:
                mark = fragment.text[0]
                inner = fragment.text[1:-1].replace(mark * 2, mark)
                template = Template(spec, "query", inner)
            elif place is Place.ALONE and template.letters:
                place = Place.STRING
            self._pieces.append((place, template))

    def takes(self, key: str) -> bool:
        """Whether the key has all that the query wants of it."""
        return self._whole.takes(key)

    def bind(self, key: str) -> tuple[str, list[str]]:
        """Statement and parameters for a key that it takes. Raises UnsafeKey."""
        text, parameters = [], []
        for place, template in self._pieces:
            if place is Place.STRING:
                text.append("?")
                parameters.append(template.query(key) or "")
            else:
                text.append(template.query(key, partial(harmless, place)) or "")
        return "".join(text), parameters


class _Steps:
    """Ends a query that takes more than some steps of SQLite's machine."""

    def __init__(self) -> None:
        self._turns = 0

    def begin(self) -> None:
        self._turns = 0

    def __call__(self) -> bool:
        # Statements are kept, and SQLite counts the steps that they took before, too: the first
        # call may come after a single step.
        self._turns += 1
        return self._turns > 1


class _Seconds:
    """Ends a query that takes too much time."""

    def __init__(self) -> None:
        self._deadline = 0.0

    def begin(self) -> None:
        self._deadline = time.monotonic() + _SLOW

    def __call__(self) -> bool:
        return time.monotonic() > self._deadline


class _Database:
    """A database file with two connections: for the loop, and for the thread."""

    def __init__(self, path: str) -> None:
        """Raises OSError, sqlite3.Error."""
        self.path: Final = path
        # O_PATH: closing another descriptor of the file would undo SQLite's locks.
        self._fd = safe_open(path, os.O_PATH)
        finalize(self, os.close, self._fd)
        status = os.fstat(self._fd)
        self._identity = (status.st_dev, status.st_ino)
        self.steps = _Steps()
        self.quick = _connect(path, 0.0)
        finalize(self, self.quick.close)
        self.quick.set_progress_handler(self.steps, _BUDGET)
        self.seconds = _Seconds()
        self.patient = _connect(path, _BUSY)
        finalize(self, self.patient.close)
        self.patient.set_progress_handler(self.seconds, 100 * _BUDGET)
        register(self)

    @property
    def replaced(self) -> bool:
        """Whether another file has the name, as far as can be seen from here."""
        try:
            status = os.stat(self.path)
        except OSError:
            return os.fstat(self._fd).st_nlink == 0
        return (status.st_dev, status.st_ino) != self._identity


def _connect(path: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=ro",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    try:
        # Opens what else SQLite needs (the write-ahead log) while it can be seen.
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            connection.close()
            raise
    return connection


class _Runner:
    """Runs a query at once, or in a thread where that takes too long."""

    def __init__(self, spec: str, path: str, log: Log) -> None:
        """Raises TableConfigError."""
        self._spec = spec
        self._log = log
        self._worker: Worker[None] = Worker(spec, lambda: None)
        try:
            self._database = _Database(path)
            return
        except OSError as error:
            reason = error.strerror
        except sqlite3.Error as error:
            reason = str(error)
        raise TableConfigError(f"{spec}: Can't open database: {reason}")

    async def run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        database = self._database
        database.steps.begin()
        try:
            return work(database.quick)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _LATER:
                raise self._failure(error) from error
        except sqlite3.Error as error:
            raise self._failure(error) from error

        def patiently(_: None) -> R:
            database.seconds.begin()
            return work(database.patient)

        try:
            return await self._worker.run(patiently)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> Exception:
        self._log.warning(f"{self._spec}: query failed: {error}")
        return TableFailed(self._spec, str(error))

    def close(self) -> None:
        self._worker.close()


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def open_named(kind: str, name: str, options: TableOptions) -> QueryTable[sqlite3.Connection]:
    """Open `sqlite:name`; raises TableConfigError."""
    client = ClientFile(kind, name, options)
    path = client.text("dbpath", required=True)
    query = SqliteQuery(client.spec, query_text(client))

    def ask(connection: sqlite3.Connection, key: str) -> Sequence[str]:
        try:
            statement, parameters = query.bind(key)
        except UnsafeKey as error:
            options.log.warning(f"{client.spec}: query failed: {error}")
            raise TableFailed(client.spec, str(error)) from None
        rows = connection.execute(statement, parameters).fetchall()
        # Only the first column counts, sqlite_table(5).
        return [_text(row[0]) for row in rows if row[0] is not None]

    return QueryTable(client, options, _Runner(client.spec, path, options.log), query.takes, ask)
