"""mysql:/file - MySQL and MariaDB, mysql_table(5). Through PyMySQL, in threads.

Keys are escaped in the character set that the connection uses, and that set is stated to the server
when the connection is made, so both mean the same by every octet. Results are text as the server
sends it, whatever their type.
"""

from __future__ import annotations

import codecs
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.hosts import Hosts, QueryFailed, ServerFailed, ServerLost, host_names
from libmail.tables.queries.query_table import QueryTable
from libmail.tables.sql.mysql_options import DEFAULT_FILES, read_options
from libmail.tables.sql.template import Dialect, SqlTemplate, UnsafeKey, query_text
from libmail.tables.table import Log, TableConfigError, TableFailed, TableOptions
from libmail.tables.worker import Worker

try:
    from pymysql.charset import charset_by_name
    from pymysql.connections import Connection
    from pymysql.constants import CLIENT, CR
    from pymysql.converters import escape_string
    from pymysql.cursors import Cursor
    from pymysql.err import MySQLError
except ImportError as error:
    raise TableConfigError(
        "unsupported dictionary type: mysql. "
        "Is the package python3-pymysql installed (PyMySQL in PyPI)?"
    ) from error

__all__ = ["open_named"]

_THREADS: Final = 4
_CONNECT_TIMEOUT: Final = 10  # seconds
_QUERY_TIMEOUT: Final = 30  # seconds
_PORT: Final = 3306
_SOCKET: Final = "/run/mysqld/mysqld.sock"

_Session: TypeAlias = "Connection[Cursor]"

# What a server that is none makes PyMySQL raise, beside its own errors.
_GARBAGE: Final = (OSError, ValueError, LookupError, struct.error, RuntimeError, TypeError)


@dataclass(frozen=True, slots=True)
class _Settings:
    """How to connect. tls: None means that the server decides."""

    user: str | None
    password: bytes
    database: str
    charset: str
    port: int
    socket: str
    tls: ssl.SSLContext | None

    @property
    def encoding(self) -> str:
        """The codec of the character set."""
        return charset_by_name(self.charset).encoding


def _options(client: ClientFile) -> Mapping[str, str]:
    """What my.cnf says. Raises TableConfigError."""
    file, group = client.text("option_file"), client.text("option_group", "client")
    if not (file or group):
        return {}
    groups = ["client", "client-server", "client-mariadb", group]
    try:
        return read_options([file] if file else DEFAULT_FILES, groups)
    except OSError as error:
        if not file:
            return {}  # nobody asked for it
        raise TableConfigError(f"{client.spec}: open {file}: {error.strerror}") from error


def _tls(client: ClientFile, options: Mapping[str, str]) -> ssl.SSLContext | None:
    """The TLS that the settings want; None if they want none. Raises TableConfigError."""
    pairs = [("tls_CAfile", "ca"), ("tls_CApath", "capath"), ("tls_cert_file", "cert")]
    pairs += [("tls_key_file", "key"), ("tls_ciphers", "cipher")]
    wanted = {name: client.text(name) or options.get(f"ssl-{other}", "") for name, other in pairs}
    verify = client.yes("tls_verify_cert", default=False)
    if not (verify or any(wanted.values())):
        return None
    authorities = wanted["tls_CAfile"] or None, wanted["tls_CApath"] or None
    try:
        context = ssl.create_default_context(cafile=authorities[0], capath=authorities[1])
        context.check_hostname = verify
        if not (verify or any(authorities)):
            context.verify_mode = ssl.CERT_NONE
        if wanted["tls_cert_file"]:
            context.load_cert_chain(wanted["tls_cert_file"], wanted["tls_key_file"] or None)
        if wanted["tls_ciphers"]:
            context.set_ciphers(wanted["tls_ciphers"])
    except (OSError, ssl.SSLError) as error:
        raise TableConfigError(f"{client.spec}: TLS files: {error}") from error
    return context


def _whatever() -> ssl.SSLContext:
    """Encryption without knowing with whom, as the libraries of MySQL prefer it to none."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _settings(client: ClientFile) -> _Settings:
    options = _options(client)
    charset = client.text("charset") or "utf8mb4"
    try:
        codecs.lookup(charset_by_name(charset).encoding)
    except (AttributeError, KeyError, LookupError):
        raise TableConfigError(f"{client.spec}: unknown charset: {charset}") from None
    port = options.get("port", "")
    password = client.text("password") or options.get("password", "")
    return _Settings(
        user=client.text("user") or options.get("user"),
        password=password.encode("utf-8", "surrogateescape"),
        database=client.text("dbname", required=True),
        charset=charset,
        port=int(port) if port.isdigit() else _PORT,
        socket=options.get("socket", _SOCKET),
        tls=_tls(client, options),
    )


class _Connector:
    """Makes connections."""

    def __init__(self, spec: str, settings: _Settings, log: Log) -> None:
        self._spec = spec
        self._settings = settings
        self._log = log
        self._any_tls = _whatever()

    def connect(self, name: str) -> _Session:
        """Connect to a server by its name in `hosts`. Raises ServerFailed."""
        try:
            return self._connect(name)
        except MySQLError as error:
            reason = _text(error)
        except _GARBAGE as error:
            reason = str(error) or type(error).__name__
        self._log.warning(f"connect to mysql server {_short(name)}: {reason}")
        raise ServerFailed(f"cannot connect to {_short(name)}: {reason}")

    def _connect(self, name: str) -> _Session:
        socket, host, port = _place(name, self._settings)
        if socket:
            return self._open(socket, host, port, None)
        if self._settings.tls is not None:
            connection = self._open("", host, port, self._settings.tls)
            if not getattr(connection, "server_capabilities", 0) & CLIENT.SSL:
                connection.close()
                raise RuntimeError("the server does not offer TLS")
            return connection
        try:
            return self._open("", host, port, self._any_tls)
        except MySQLError as error:
            if error.args[0] != CR.CR_SSL_CONNECTION_ERROR:
                raise
            return self._open("", host, port, None)

    def _open(self, socket: str, host: str, port: int, tls: ssl.SSLContext | None) -> _Session:
        settings = self._settings
        return Connection(
            user=settings.user,
            password=settings.password,
            host=host,
            port=port,
            unix_socket=socket or None,
            database=settings.database,
            charset=settings.charset,
            # The server may have been told to ignore what the client says in its greeting. And
            # with backslashes that do nothing, there would be no way to escape a double quote.
            init_command=f"SET NAMES {settings.charset}, autocommit = 1, SESSION sql_mode = "
            "REPLACE(@@SESSION.sql_mode, 'NO_BACKSLASH_ESCAPES', '')",
            connect_timeout=_CONNECT_TIMEOUT,
            read_timeout=_QUERY_TIMEOUT,
            write_timeout=_QUERY_TIMEOUT,
            autocommit=None,
            use_unicode=False,
            conv={},
            ssl=tls,
            ssl_disabled=tls is None,
        )


def _short(name: str) -> str:
    return name.removeprefix("unix:").removeprefix("inet:")


def _place(name: str, settings: _Settings) -> tuple[str, str, int]:
    """(socket, host, port) of a name in `hosts`; the socket is "" for TCP."""
    short = _short(name)
    if short.startswith("/"):
        return short, "localhost", 0
    host, colon, port = short.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = short, ""
    # The client libraries take this name for the socket.
    if host == "localhost":
        return settings.socket, host, 0
    return "", host.strip("[]"), int(port) if port.isdigit() else settings.port


def _text(error: BaseException) -> str:
    """What a server or PyMySQL says, without the number."""
    return str(error.args[-1]) if error.args else str(error)


class _Asker:
    """Asks the query of a table."""

    def __init__(self, client: ClientFile, settings: _Settings, log: Log) -> None:
        """Raises TableConfigError."""
        self._spec = client.spec
        text = query_text(client)
        self._encoding = settings.encoding
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError as error:
            raise TableConfigError(f"{client.spec}: query: {error}") from None
        self._template = SqlTemplate(client.spec, text, Dialect.MYSQL)
        self._needs_rows = client.yes("require_result_set", default=True)
        self._log = log
        self.takes: Final = self._template.takes

    def ask(self, hosts: Hosts[_Session], key: str) -> Sequence[str]:
        """The values for a key: all columns of all rows. Raises TableRetry."""
        try:
            key.encode(self._encoding)
        except UnicodeEncodeError:
            return []  # nothing in this character set is equal to it
        try:
            return hosts.ask(lambda connection, _: self._rows(connection, key))
        except (QueryFailed, ServerFailed) as error:
            raise TableFailed(self._spec, str(error)) from error

    def _rows(self, connection: _Session, key: str) -> Sequence[str]:
        try:
            return self._fetch(connection, self._template.query(key, escape_string))
        except UnsafeKey as error:
            reason = str(error)
        except (MySQLError, *_GARBAGE) as error:
            reason = _text(error)
            if not isinstance(error, MySQLError) or not connection.open:
                self._log.warning(f"{self._spec}: query failed: {reason}")
                late = isinstance(error.__context__, TimeoutError)
                raise (ServerFailed if late else ServerLost)(reason) from error
        self._log.warning(f"{self._spec}: query failed: {reason}")
        raise QueryFailed(reason)

    def _fetch(self, connection: _Session, statement: str) -> Sequence[str]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            if cursor.description is None and self._needs_rows:
                raise MySQLError("query returned no result set (require_result_set = yes)")
            found: list[str] = []
            for row in cursor.fetchall():
                found += [
                    value.decode(self._encoding, "surrogateescape")
                    for value in row
                    if isinstance(value, bytes)
                ]
            while cursor.nextset():  # a procedure ends with one that has no rows
                if cursor.description is not None:
                    raise MySQLError("query returned more than one result set")
            return found


def open_named(kind: str, name: str, options: TableOptions) -> QueryTable[Hosts[_Session]]:
    """Open `mysql:name`; raises TableConfigError."""
    client = ClientFile(kind, name, options)
    settings = _settings(client)
    asker = _Asker(client, settings, options.log)
    connector = _Connector(client.spec, settings, options.log)
    names, retry = host_names(client), client.seconds("retry_interval", 60.0)

    def start() -> Hosts[_Session]:
        return Hosts(names, connector.connect, lambda connection: connection.close(), retry)

    worker = Worker(
        client.spec,
        start,
        Hosts.close,
        threads=_THREADS,
        idle=client.seconds("idle_interval", 60.0),
        rest=Hosts.close,
    )
    return QueryTable(client, options, worker, asker.takes, asker.ask)
