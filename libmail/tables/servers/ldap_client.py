"""A connection to an LDAP directory, through python-ldap and so OpenLDAP's own library.

Called by: the ldap table, in a thread of its own. The library tries the servers in turn; here are
time limits, the bind, and what happens when a connection breaks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from libmail.tables.queries.client_file import ClientFile
from libmail.tables.servers.ldap_results import AttributeNames, Entry, Search, SearchRequest
from libmail.tables.table import Log, TableConfigError

try:
    import ldap
    import ldap.dn
    import ldap.filter
    import ldap.sasl
    import ldap.schema.subentry  # python-ldap imports it for each connection
except ImportError as error:
    raise TableConfigError(
        "unsupported dictionary type: ldap. "
        "Is the package python3-ldap installed (python-ldap in PyPI)?"
    ) from error

__all__ = [
    "Directory",
    "DirectoryError",
    "Settings",
    "escape_filter",
    "escape_name",
    "read_settings",
    "set_debug_level",
]

R = TypeVar("R")

_BINDS: Final = {"no": "", "none": "", "yes": "simple", "simple": "simple", "sasl": "sasl"}
_SCOPES: Final = {"base": 0, "one": 1, "sub": 2}
_DEREFERENCE: Final = ("never", "when searching", "when locating the base", "always")
_LONGEST_PAUSE: Final = 10.0  # seconds

# After these the connection is of no use any more.
_LOST: Final = (ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.TIMEOUT, ldap.UNAVAILABLE)


class DirectoryError(Exception):
    """The directory did not answer. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The client file, but for the query itself. bind: "simple", "sasl", or "" for none."""

    servers: str
    timeout: float
    version: int
    scope: int
    size_limit: int
    recursion_limit: int
    dereference: int
    chase_referrals: bool
    debug_level: int
    bind: str
    bind_dn: str
    bind_password: str
    sasl_mechanisms: Sequence[str]
    sasl_realm: str
    sasl_authorization: str
    sasl_least_ssf: int
    start_tls: bool
    tls: Sequence[tuple[int, str | int]]
    attributes: AttributeNames


def _servers(client: ClientFile) -> str:
    port = client.int("server_port", 389, 1, 65535)
    urls = []
    for word in client.text("server_host", "localhost").replace(",", " ").split():
        if "://" in word:
            urls.append(word)
        else:
            host, colon, own = word.rpartition(":")
            has_port = colon and own.isdigit() and (":" not in host or host.endswith("]"))
            urls.append(f"ldap://{word}" if has_port else f"ldap://{word}:{port}")
    return " ".join(urls)


def _choice(client: ClientFile, name: str, default: str, choices: dict[str, R]) -> R:
    text = client.text(name) or default
    if text.lower() not in choices:
        allowed = ", ".join(choices)
        raise TableConfigError(f"{client.spec}: bad {name}: {text} (must be one of {allowed})")
    return choices[text.lower()]


def _scope(client: ClientFile, log: Log) -> int:
    text = client.text("scope") or "sub"
    if text.lower() not in _SCOPES:
        log.warning(
            f"dict_ldap_open: {client.spec}: "
            f"Unrecognized value {text} specified for scope; using sub"
        )
    return _SCOPES.get(text.lower(), _SCOPES["sub"])


def _tls(client: ClientFile) -> Sequence[tuple[int, str | int]]:
    """Options of the library."""
    names = {
        "tls_ca_cert_dir": ldap.OPT_X_TLS_CACERTDIR,
        "tls_ca_cert_file": ldap.OPT_X_TLS_CACERTFILE,
        "tls_cert": ldap.OPT_X_TLS_CERTFILE,
        "tls_key": ldap.OPT_X_TLS_KEYFILE,
        "tls_random_file": ldap.OPT_X_TLS_RANDOM_FILE,
        "tls_cipher_suite": ldap.OPT_X_TLS_CIPHER_SUITE,
    }
    options: list[tuple[int, str | int]] = [
        (option, client.text(name)) for name, option in names.items() if client.text(name)
    ]
    verify = client.yes("tls_require_cert", default=False)
    wanted = ldap.OPT_X_TLS_DEMAND if verify else ldap.OPT_X_TLS_NEVER
    return [*options, (ldap.OPT_X_TLS_REQUIRE_CERT, wanted)]


def read_settings(client: ClientFile, log: Log) -> Settings:
    """Read a client file. Raises TableConfigError."""
    for name in ("cache", "cache_expiry", "cache_size"):
        if client.is_set(name):
            log.warning(f"dict_ldap_open: {client.spec} ignoring {name}")
    expansion_limit = client.int("expansion_limit", 0)

    def names(parameter: str, default: str = "") -> Sequence[str]:
        return client.text(parameter, default).replace(",", " ").split()

    return Settings(
        servers=_servers(client),
        timeout=float(client.int("timeout", 10, 1)),
        version=client.int("version", 3, 2, 3),
        scope=_scope(client, log),
        size_limit=client.int("size_limit", expansion_limit),
        recursion_limit=client.int("recursion_limit", 1000, 1),
        dereference=client.int("dereference", 0, 0, len(_DEREFERENCE) - 1),
        chase_referrals=_choice(
            client, "chase_referrals", "no", {"no": False, "yes": True, "0": False, "1": True}
        ),
        debug_level=client.int("debuglevel", 0),
        bind=_choice(client, "bind", "yes", _BINDS),
        bind_dn=client.text("bind_dn"),
        bind_password=client.text("bind_pw"),
        sasl_mechanisms=names("sasl_mechs"),
        sasl_realm=client.text("sasl_realm"),
        sasl_authorization=client.text("sasl_authz_id"),
        sasl_least_ssf=client.int("sasl_minssf", 0),
        start_tls=client.yes("start_tls", default=False),
        tls=_tls(client),
        attributes=AttributeNames(
            names("result_attribute", "maildrop"),
            names("special_result_attribute"),
            names("terminal_result_attribute"),
            names("leaf_result_attribute"),
        ),
    )


def _said(error: ldap.LDAPError) -> tuple[int, str]:
    """The number and text of an error: -1, "Can't contact LDAP server"."""
    if isinstance(error, ldap.TIMEOUT):
        return -5, "Timed out"  # which python-ldap raises without either
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return details.get("result", -1), details.get("desc") or str(error)


def escape_filter(text: str) -> str:
    """The text as it can stand in a filter, RFC 4515."""
    return str(ldap.filter.escape_filter_chars(text))


def escape_name(text: str) -> str:
    """The text as it can stand in a distinguished name, RFC 4514."""
    return str(ldap.dn.escape_dn_chars(text))


def set_debug_level(level: int) -> None:
    """Have the library write to standard error what it does, in the whole process."""
    ldap.set_option(ldap.OPT_DEBUG_LEVEL, level)


class Directory:
    """The connection of one thread."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._connection: ldap.ldapobject.SimpleLDAPObject | None = None
        self._not_before = 0.0

    def ask(self, question: Callable[[Search], R]) -> R:
        """The answer to a question, which is called with a function that searches.

        It may be called twice, when the connection had been there for longer. Raises
        DirectoryError.
        """
        try:
            if self._connection is not None:
                try:
                    return question(self._search)
                except _LOST as error:
                    self.close()
                    if isinstance(error, ldap.TIMEOUT):
                        raise
            self._connection = self._connect()
            return question(self._search)
        except ldap.LDAPError as error:
            if isinstance(error, _LOST):
                self.close()
            number, text = _said(error)
            problem = f"Search error {number}: {text}"
            self._log.warning(f"dict_ldap_lookup: {problem}")
            raise DirectoryError(problem) from error

    def _connect(self) -> ldap.ldapobject.SimpleLDAPObject:
        begin = time.monotonic()
        if begin < self._not_before:
            raise DirectoryError("no server could be reached a moment ago")
        try:
            return self._bound(self._opened())
        except ldap.LDAPError as error:
            # Others wait for this thread: a server that was slow to fail is not asked again at
            # once for each of them.
            now = time.monotonic()
            self._not_before = now + min(now - begin, _LONGEST_PAUSE)
            problem = f"Unable to bind to server {self._settings.servers} with dn "
            problem += self._settings.bind_dn or "empty or implicit"
            number, text = _said(error)
            self._log.warning(f"dict_ldap_connect: {problem}: {number} ({text})")
            raise DirectoryError(f"{problem}: {number} ({text})") from error

    def _opened(self) -> ldap.ldapobject.SimpleLDAPObject:
        settings = self._settings
        connection = ldap.initialize(settings.servers)
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, settings.version)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, settings.timeout)
        connection.set_option(ldap.OPT_TIMEOUT, settings.timeout)
        connection.set_option(ldap.OPT_DEREF, settings.dereference)
        connection.set_option(ldap.OPT_REFERRALS, int(settings.chase_referrals))
        for option, value in settings.tls:
            connection.set_option(option, value)
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        if settings.start_tls:
            self._start_tls(connection)
        return connection

    def _start_tls(self, connection: ldap.ldapobject.SimpleLDAPObject) -> None:
        try:
            connection.start_tls_s()
        except ldap.LDAPError as error:
            number, text = _said(error)
            self._log.error(f"dict_ldap_connect: Unable to set STARTTLS: {number}: {text}")
            raise

    def _bound(
        self, connection: ldap.ldapobject.SimpleLDAPObject
    ) -> ldap.ldapobject.SimpleLDAPObject:
        settings = self._settings
        if settings.bind == "simple":
            connection.simple_bind_s(settings.bind_dn, settings.bind_password)
        elif settings.bind == "sasl":
            connection.set_option(ldap.OPT_X_SASL_SECPROPS, f"minssf={settings.sasl_least_ssf}")
            answers = {
                ldap.sasl.CB_AUTHNAME: settings.bind_dn,
                ldap.sasl.CB_PASS: settings.bind_password,
                ldap.sasl.CB_GETREALM: settings.sasl_realm,
                ldap.sasl.CB_USER: settings.sasl_authorization,
            }
            mechanisms = " ".join(settings.sasl_mechanisms)
            connection.sasl_interactive_bind_s("", ldap.sasl.sasl(answers, mechanisms))
        return connection

    def _search(self, request: SearchRequest) -> Sequence[Entry]:
        """Search once; a base that is not there has no entries. Raises ldap.LDAPError."""
        assert self._connection is not None
        try:
            found = self._connection.search_ext_s(
                request.base,
                request.scope,
                request.filter,
                list(request.attributes),
                timeout=self._settings.timeout,
                sizelimit=self._settings.size_limit,
            )
        except ldap.NO_SUCH_OBJECT:
            return []
        # References to other servers come as entries without a name.
        return [Entry(dn, values) for dn, values in found if dn is not None]

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.unbind_ext_s()
            except ldap.LDAPError:
                pass  # it is closed all the same
