"""pgsql:/file - PostgreSQL, pgsql_table(5). Through libpq as psycopg wraps it, in threads.

Of psycopg only the layer over libpq is used (psycopg.pq). Results have to be text as the server
sends it, whatever their type, and every wait needs a time limit, which the layers above lack.
"""

from __future__ import annotations

import codecs
import select
import time
from collections.abc import Sequence
from typing import Final

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.hosts import Hosts, QueryFailed, ServerFailed, ServerLost, host_names
from libmail.tables.queries.query_table import QueryTable
from libmail.tables.sql.template import Dialect, SqlTemplate, UnsafeKey, query_text
from libmail.tables.table import Log, TableConfigError, TableFailed, TableOptions
from libmail.tables.worker import Worker

try:
    from psycopg import Error
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import ConnStatus, Escaping, ExecStatus, PGconn, PollingStatus
    from psycopg.pq.abc import PGresult
except ImportError as error:
    raise TableConfigError(
        "unsupported dictionary type: pgsql. "
        "Is the package python3-psycopg installed (psycopg[binary] in PyPI)?"
    ) from error

__all__ = ["open_named"]

_THREADS: Final = 4
_CONNECT_TIMEOUT: Final = 10.0  # seconds
_QUERY_TIMEOUT: Final = 30.0  # seconds

_URIS: Final = ("postgresql://", "postgres://")


class _LateAnswer(Exception):
    """The server took too long."""


class _Connection:
    """One connection; every wait has a limit."""

    def __init__(self, parameters: str) -> None:
        """parameters: a connection string of libpq. Raises psycopg.Error, _LateAnswer."""
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        self._pg = PGconn.connect_start(parameters.encode("utf-8", "surrogateescape"))
        while (status := self._pg.connect_poll()) != PollingStatus.OK:
            if status == PollingStatus.FAILED:
                reason = self._message(self._pg.error_message)
                self._pg.finish()
                raise Error(reason)
            self._wait(writing=status == PollingStatus.WRITING, deadline=deadline)
        self._pg.nonblocking = 1
        self._escaping = Escaping(self._pg)

    def escape(self, text: bytes) -> bytes:
        """The text as it can stand in a string, in the encoding of the connection."""
        return bytes(self._escaping.escape_string(text))

    def rows(self, statement: bytes) -> Sequence[bytes]:
        """The values of all columns of all rows, without NULL.

        Raises psycopg.Error, _LateAnswer.
        """
        deadline = time.monotonic() + _QUERY_TIMEOUT
        # With parameters, even if there are none, the server takes only one statement.
        self._pg.send_query_params(statement, None)
        while self._pg.flush():
            self._wait(writing=True, deadline=deadline)
        results: list[PGresult] = []
        while (result := self._result(deadline)) is not None:
            results.append(result)
        found: list[bytes] = []
        for one in results:
            if one.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
                raise Error(self._message(one.error_message))
            cells = (
                one.get_value(row, column)
                for row in range(one.ntuples)
                for column in range(one.nfields)
            )
            found += [cell for cell in cells if cell is not None]
        return found

    def _result(self, deadline: float) -> PGresult | None:
        while self._pg.is_busy():
            self._wait(writing=False, deadline=deadline)
            self._pg.consume_input()
        return self._pg.get_result()

    def _wait(self, *, writing: bool, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._pg.socket, select.POLLOUT if writing else select.POLLIN)
        if not poll.poll(1000 * max(deadline - time.monotonic(), 0)):
            self._pg.finish()
            raise _LateAnswer("the server did not answer in time")

    @staticmethod
    def _message(text: bytes) -> str:
        return text.decode("utf-8", "replace").strip()

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._pg.status != ConnStatus.OK

    def close(self) -> None:
        self._pg.finish()


class _Connector:
    """Makes connections."""

    def __init__(self, client: ClientFile, log: Log) -> None:
        """Raises TableConfigError."""
        self._log = log
        self._encoding = client.text("encoding") or "UTF8"
        uris = all(name.startswith(_URIS) for name in host_names(client))
        self._usual = {
            "dbname": client.text("dbname", required=not uris),
            "user": client.text("user"),
            "password": client.text("password"),
        }
        for name in host_names(client):
            try:
                self._parameters(name)
            except Error as error:
                raise TableConfigError(f"{client.spec}: bad host: {error}") from error

    def _parameters(self, name: str) -> str:
        """The connection string for a name in `hosts`. Raises psycopg.Error."""
        if name.startswith(_URIS):
            return make_conninfo(name, client_encoding=self._encoding)
        host, port = _place(name)
        given = {**self._usual, "host": host, "port": port}
        wanted = {word: value for word, value in given.items() if value}
        return make_conninfo("", client_encoding=self._encoding, **wanted)

    def connect(self, name: str) -> _Connection:
        """Connect to a server by its name in `hosts`. Raises ServerFailed."""
        try:
            return _Connection(self._parameters(name))
        except (Error, _LateAnswer) as error:
            reason = str(error)
        shown = _shown(name)
        self._log.warning(f"connect to pgsql server {shown}: {reason}")
        raise ServerFailed(f"cannot connect to {shown}: {reason}")


def _place(name: str) -> tuple[str, str]:
    """(host, port) of a name in `hosts`; the host is a directory for UNIX sockets."""
    short = name.removeprefix("unix:").removeprefix("inet:")
    if short.startswith("/"):
        return short, ""
    host, colon, port = short.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return short.strip("[]"), ""
    return host.strip("[]"), port


def _shown(name: str) -> str:
    """A name for the log: without the password that a URI may have."""
    if not name.startswith(_URIS):
        return name.removeprefix("unix:").removeprefix("inet:")
    scheme, _, rest = name.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _codec(spec: str, encoding: str) -> str:
    """Python's name for an encoding of PostgreSQL. Raises TableConfigError."""
    name = encoding.lower()
    if name in ("sql_ascii", "unicode"):
        return "utf-8"
    for prefix, other in (("win", "cp"), ("koi8", "koi8-"), ("uhc", "cp949")):
        if name.startswith(prefix):
            name = name.replace(prefix, other, 1)
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise TableConfigError(f"{spec}: unknown encoding: {encoding}") from None


class _Asker:
    """Asks the query of a table."""

    def __init__(self, client: ClientFile, log: Log) -> None:
        """Raises TableConfigError."""
        self._spec = client.spec
        self._codec = _codec(client.spec, client.text("encoding") or "UTF8")
        text = query_text(client, functions=True)
        self._template = SqlTemplate(client.spec, text, Dialect.PGSQL)
        self._log = log
        self.takes: Final = self._template.takes

    def ask(self, hosts: Hosts[_Connection], key: str) -> Sequence[str]:
        """The values for a key: all columns of all rows. Raises TableRetry."""
        try:
            key.encode(self._codec)
        except UnicodeEncodeError:
            return []  # nothing in this encoding is equal to it
        try:
            return hosts.ask(lambda connection, host: self._rows(connection, host, key))
        except (QueryFailed, ServerFailed) as error:
            raise TableFailed(self._spec, str(error)) from error

    def _rows(self, connection: _Connection, host: str, key: str) -> Sequence[str]:
        def quote(part: str) -> str:
            return connection.escape(part.encode(self._codec)).decode(self._codec)

        def quote_escapes(part: str) -> str:
            return part.replace("\\", "\\\\").replace("'", "''")

        try:
            statement = self._template.query(key, quote, quote_escapes)
            found = connection.rows(statement.encode(self._codec, "surrogateescape"))
            return [value.decode(self._codec, "surrogateescape") for value in found]
        except _LateAnswer as error:
            problem: Exception = ServerFailed(str(error))
        except Error as error:
            problem = (ServerLost if connection.is_lost else QueryFailed)(str(error))
        except UnsafeKey as error:
            problem = QueryFailed(str(error))
        self._log.warning(f"pgsql query failed: fatal error from host {_shown(host)}: {problem}")
        raise problem


def open_named(kind: str, name: str, options: TableOptions) -> QueryTable[Hosts[_Connection]]:
    """Open `pgsql:name`; raises TableConfigError."""
    client = ClientFile(kind, name, options)
    asker = _Asker(client, options.log)
    connector = _Connector(client, options.log)
    names, retry = host_names(client), client.seconds("retry_interval", 60.0)
    worker = Worker(
        client.spec,
        lambda: Hosts(names, connector.connect, _Connection.close, retry),
        Hosts.close,
        threads=_THREADS,
        idle=client.seconds("idle_interval", 60.0),
        rest=Hosts.close,
    )
    return QueryTable(client, options, worker, asker.takes, asker.ask)
