"""SASL authentication of clients: mechanisms, and the authentication server (SASL_README).

`open_logins` reads the parameters and opens what they name, before the jail. `Logins` answers in
the event loop, for all sessions of a process; the AUTH command is in `daemons.smtpd.verbs.auth`.
The authentication server is asked when a client says EHLO, not before: what hangs up at once, or
only wants to say HELO, costs it nothing.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from libmail.clients.dovecot import DovecotServer
from libmail.config import Config
from libmail.dns.native import ServerAddresses
from libmail.log import LOG, Fatal
from libmail.lookup.facts import Facts
from libmail.net.endpoint import Endpoint, EndpointOpener, parse_endpoint
from libmail.sasl.mechanism import (
    Mechanism,
    Property,
    SecurityOptions,
    parse_security_options,
    usable,
)
from libmail.sasl.passwords import PasswordChecker
from libmail.sasl.server import AuthContext, Exchange, SaslServer, Step
from libmail.sasl.table import TableServer, may_scram
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList, StringList
from libmail.tables.table import SequenceTable, TableError, TableOptions, TableRetry
from libmail.text.printable import printable
from libmail.tls.facts import Trust

__all__ = ["Login", "Logins", "NoMechanisms", "OpenedLogins", "SaslParams", "open_logins"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslParams:
    """See postconf(5)."""

    broken_sasl_auth_clients: bool
    config_directory: str
    cyrus_sasl_config_path: str
    myhostname: str
    parent_domain_matches_subdomains: tuple[str, ...]
    smtpd_sasl_auth_enable: bool
    smtpd_sasl_authenticated_header: bool
    smtpd_sasl_exceptions_networks: tuple[str, ...]
    smtpd_sasl_local_domain: str
    smtpd_sasl_mechanism_filter: tuple[str, ...]
    smtpd_sasl_path: str
    smtpd_sasl_response_limit: int
    smtpd_sasl_security_options: tuple[str, ...]
    smtpd_sasl_service: str
    smtpd_sasl_tls_security_options: tuple[str, ...]
    smtpd_sasl_type: str
    smtpd_tls_auth_only: bool


Bindings: TypeAlias = Callable[[], Mapping[str, bytes]]
"""Gives the data of a session's channel bindings by name."""


class NoMechanisms(Exception):
    """AUTH is enabled, but no mechanism is known: the server does not answer, or offers none."""


class OpenedLogins(NamedTuple):
    """What is read and opened before the jail.

    begin: makes the authentication server in the event loop; None: nobody can log in. clear,
    encrypted: what mechanisms have to be without and with TLS. filter: those that are announced.
    exceptions: clients to whom none is.
    """

    params: SaslParams
    begin: Callable[[], SaslServer] | None
    clear: SecurityOptions
    encrypted: SecurityOptions
    filter: StringList
    exceptions: AddressList


@dataclass(slots=True)
class Login:
    """The state of AUTH in a session. announced: the mechanisms that EHLO lists, "" for none.

    tried: the name under which the client last tried to log in, as far as the server told.
    """

    announced: str = ""
    tried: str | None = None


# before the jail


def open_logins(config: Config) -> OpenedLogins:
    """Read the parameters, open what they name. Raises Fatal, ConfigError, TableConfigError."""
    params = config.load(SaslParams)
    options = TableOptions.of(config)
    networks = "smtpd_sasl_exceptions_networks"
    begin = _server(params, options) if params.smtpd_sasl_auth_enable else None
    clear = _options("smtpd_sasl_security_options", params.smtpd_sasl_security_options)
    encrypted = _options("smtpd_sasl_tls_security_options", params.smtpd_sasl_tls_security_options)
    return OpenedLogins(
        params,
        begin,
        clear,
        encrypted,
        StringList("smtpd_sasl_mechanism_filter", params.smtpd_sasl_mechanism_filter, options),
        AddressList(
            networks,
            params.smtpd_sasl_exceptions_networks,
            options,
            parent=networks in params.parent_domain_matches_subdomains,
        ),
    )


def _options(name: str, words: tuple[str, ...]) -> SecurityOptions:
    try:
        return parse_security_options(words)
    except ValueError as error:
        raise Fatal(f"{name}: {error}") from None


def _server(params: SaslParams, options: TableOptions) -> Callable[[], SaslServer] | None:
    begin = _SERVERS.get(params.smtpd_sasl_type)
    if begin is None:
        LOG.warning(f"unsupported SASL server implementation: {params.smtpd_sasl_type}")
        raise Fatal("SASL per-process initialization failed")
    return begin(params, options)


def _dovecot(params: SaslParams, _: TableOptions) -> Callable[[], SaslServer]:
    path = params.smtpd_sasl_path
    try:
        named = path.startswith(("inet:", "unix:"))
        endpoint = parse_endpoint(path) if named else Endpoint(path)
    except ValueError as error:
        raise Fatal(f"smtpd_sasl_path: {error}") from None
    opener = EndpointOpener(endpoint, ServerAddresses)
    return lambda: DovecotServer(path, opener.connect)


def _table(params: SaslParams, options: TableOptions) -> Callable[[], SaslServer]:
    maps = Maps("smtpd_sasl_path", (params.smtpd_sasl_path,), options)
    checker = PasswordChecker()

    async def find(login: str) -> str | None:
        try:
            return await maps.find(login)
        except TableError as error:
            raise OSError(0, str(error)) from error

    scram, realm = _has_scram(maps), params.smtpd_sasl_local_domain
    return lambda: TableServer(find, checker, LOG.warning, realm, scram=scram)


def _has_scram(maps: Maps) -> bool:
    """Whether to offer SCRAM: clients that try it first would try nothing else after it.

    Of a table that cannot be listed here and now, nobody can tell.
    """
    for table in maps.tables:
        if not isinstance(table, SequenceTable) or table.spec.startswith(_ELSEWHERE):
            return True
        try:
            if may_scram(value for _, value in table.entries()):
                return True
        except TableError:
            return True
    return False


class _Nobody:
    """Stands in for an authentication server that cannot be used: every login fails for now."""

    async def mechanisms(self) -> tuple[Mechanism, ...]:
        return ()

    async def begin(
        self, mechanism: str, initial: bytes | None, context: AuthContext
    ) -> tuple[Exchange, Step]:
        raise AssertionError(mechanism)


def _cyrus(params: SaslParams, _: TableOptions) -> Callable[[], SaslServer]:
    try:
        # Both load the library, where it is.
        from libmail.clients.cyrus import CyrusServer
        from libmail.sasl.cyrus import CyrusError, CyrusSettings, Library
    except ImportError as error:
        LOG.warning(f"smtpd_sasl_type = cyrus: {error}: nobody can log in")
        return _Nobody
    settings = CyrusSettings(
        application=params.smtpd_sasl_path,
        service=params.smtpd_sasl_service,
        host=params.myhostname,
        realm=params.smtpd_sasl_local_domain,
        directories=params.cyrus_sasl_config_path or _own_directory(params),
    )
    try:
        library = Library(settings)
    except CyrusError as error:
        LOG.warning(str(error))
        return _Nobody
    for line in library.lines:
        LOG.warning(printable(line))
    return lambda: CyrusServer(library)


def _own_directory(params: SaslParams) -> str:
    """The directory where Debian has the configuration; "" if it does not exist."""
    directory = f"{params.config_directory}/sasl"
    return directory if os.path.exists(f"{directory}/{params.smtpd_sasl_path}.conf") else ""


_TABLE: Final = "table"
_ELSEWHERE: Final = ("proxy:", "memcache:")
_SERVERS: Final = {"cyrus": _cyrus, "dovecot": _dovecot, _TABLE: _table}
_PLUS: Final = "-PLUS"


# in the event loop


class Logins:
    """The authentication server, and who may use it."""

    def __init__(self, opened: OpenedLogins, *, must_encrypt: bool) -> None:
        """must_encrypt: clients have to use TLS."""
        self._opened = opened
        self.params = opened.params
        self._only_encrypted = must_encrypt or opened.params.smtpd_tls_auth_only
        self._server = None if opened.begin is None else opened.begin()
        self._binds = opened.params.smtpd_sasl_type == _TABLE
        self._cyrus = opened.params.smtpd_sasl_type == "cyrus"

    def possible(self, facts: Facts) -> bool:
        """Whether this client could log in."""
        return self._server is not None and (facts.tls is not None or not self._only_encrypted)

    async def acceptable(self, facts: Facts, bindings: Bindings) -> tuple[str, ...]:
        """The mechanisms by which a client may log in. Raises NoMechanisms."""
        if self._server is None:
            return ()
        opened = self._opened
        options = opened.clear if facts.tls is None else opened.encrypted
        bound = facts.tls is not None and self._binds and bool(bindings())
        offered = usable(await self._server.mechanisms(), bound=bound)
        found = tuple(one.name for one in offered if options.accept(one))
        if not found:
            LOG.warning("no SASL authentication mechanisms")
            raise NoMechanisms
        return found

    async def why_not(self, name: str) -> str:
        """Why a mechanism is none of those: in the words of the library where it would tell."""
        if self._server is None or not self._cyrus:
            return "Invalid authentication mechanism"
        offered = {one.name: one.properties for one in await self._server.mechanisms()}
        if offered.get(name, Property.NONE) & Property.PLAINTEXT:
            return "encryption needed to use mechanism"
        return "no mechanism available"

    async def announced(self, facts: Facts, bindings: Bindings) -> str:
        """The mechanisms that EHLO lists for a client, "" for none. Raises NoMechanisms."""
        if not self.possible(facts):
            return ""
        names = await self.acceptable(facts, bindings)
        try:
            if await self._opened.exceptions.match(facts.client.name, facts.client.address):
                return ""
            shown = [name for name in names if await self._opened.filter.match(name)]
        except TableRetry as error:
            LOG.warning(str(error))
            raise NoMechanisms from None
        if not shown:
            LOG.warning(
                f"smtpd_sasl_mechanism_filter discards all mechanisms in '{' '.join(names)}'"
            )
            raise NoMechanisms
        return " ".join(shown)

    async def begin(
        self,
        mechanism: str,
        initial: bytes | None,
        facts: Facts,
        bindings: Bindings,
        announced: str,
    ) -> tuple[Exchange, Step]:
        """Begin an exchange with an acceptable mechanism. announced: those that EHLO has listed."""
        if self._server is None:
            raise AssertionError(mechanism)
        client, tls = facts.client, facts.tls
        context = AuthContext(
            self.params.smtpd_sasl_service,
            client.address,
            client.port,
            client.server_address,
            client.server_port,
            encrypted=tls is not None,
            certified=tls is not None and tls.trust in (Trust.TRUSTED, Trust.VERIFIED),
            bindings=bindings() if tls is not None and self._binds else {},
            plus=_PLUS in announced,
        )
        return await self._server.begin(mechanism, initial, context)
