"""Rate and concurrency limits for clients: smtpd_client_*_limit. anvil(8) counts.

anvil is not asked where nothing is limited, nor about smtpd_client_event_limit_exceptions. Clients
of one network count as one client, as smtpd_client_ipv4_prefix_length (or ipv6) says.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final, NamedTuple

from daemons.smtpd.events import LimitExceeded
from libmail.clients.anvil import AnvilClient
from libmail.config import Config
from libmail.log import LOG, Level
from libmail.lookup.facts import Client
from libmail.smtp.reply import Reply
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["Limits", "RateParams", "Rates", "open_limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateParams:
    """The limits; 0 for none."""

    myhostname: str
    parent_domain_matches_subdomains: tuple[str, ...]
    smtpd_client_auth_rate_limit: int
    smtpd_client_connection_count_limit: int
    smtpd_client_connection_rate_limit: int
    smtpd_client_event_limit_exceptions: tuple[str, ...]
    smtpd_client_ipv4_prefix_length: int
    smtpd_client_ipv6_prefix_length: int
    smtpd_client_message_rate_limit: int
    smtpd_client_new_tls_session_rate_limit: int
    smtpd_client_recipient_rate_limit: int


class Limits(NamedTuple):
    """What is read and opened before the jail. service: the first column of master.cf."""

    params: RateParams
    exceptions: AddressList
    service: str


def open_limits(config: Config, service: str) -> Limits:
    """Read the limits. Raises ConfigError, TableConfigError."""
    params = config.load(RateParams)
    name = "smtpd_client_event_limit_exceptions"
    parent = name in params.parent_domain_matches_subdomains
    exceptions = AddressList(
        name, params.smtpd_client_event_limit_exceptions, TableOptions.of(config), parent=parent
    )
    return Limits(params, exceptions, service)


class _Event(NamedTuple):
    """A limited kind of event. limit: events per anvil_rate_time_unit. warning: words of the log;
    error: of the reply."""

    limit: int
    warning: str
    error: str


_TOO_MANY_CONNECTIONS: Final = "Error: too many connections from"
_TOO_MANY_HANDSHAKES: Final = "Error: too many new TLS sessions from"


class Rates:
    """Counts events of clients and applies the limits. Each `connect` needs a `disconnect`.

    Methods return the reply that refuses an event beyond its limit, or None. They are for clients
    that `limited` is true of. shown: the client, for the log.
    """

    def __init__(self, limits: Limits, anvil: AnvilClient) -> None:
        params = self._params = limits.params
        self._exceptions = limits.exceptions
        self._service = limits.service
        self._anvil = anvil
        self._connections = bool(
            params.smtpd_client_connection_count_limit or params.smtpd_client_connection_rate_limit
        )
        self._handshakes = params.smtpd_client_new_tls_session_rate_limit
        self._logins = _Event(
            params.smtpd_client_auth_rate_limit,
            "AUTH command rate limit exceeded",
            "Error: too many AUTH commands from",
        )
        self._messages = _Event(
            params.smtpd_client_message_rate_limit,
            "Message delivery request rate limit exceeded",
            "Error: too much mail from",
        )
        self._recipients = _Event(
            params.smtpd_client_recipient_rate_limit,
            "Recipient address rate limit exceeded",
            "Error: too many recipients from",
        )
        events = (self._logins, self._messages, self._recipients)
        self._any = any((self._connections, self._handshakes, *(event.limit for event in events)))

    async def limited(self, client: Client) -> bool:
        """Whether limits apply to a client; they do while the list of exceptions fails."""
        if not self._any:
            return False
        try:
            return not await self._exceptions.match(client.name, client.address)
        except TableRetry as error:
            LOG.warning(str(error))
            return True

    async def connect(self, client: Client, shown: str) -> Reply | None:
        """Count a connection."""
        if not self._connections:
            return None
        params = self._params
        counts = await self._anvil.count("connect", self._ident(client))
        for number, limit, what in (
            (counts.connections, params.smtpd_client_connection_count_limit, "concurrency"),
            (counts.rate, params.smtpd_client_connection_rate_limit, "rate"),
        ):
            if 0 < limit < number:
                self._warn(f"Connection {what} limit exceeded", number, shown)
                text = f"{params.myhostname} {_TOO_MANY_CONNECTIONS} {client.address}"
                return Reply(421, "4.7.0", text)
        return None

    def disconnect(self, client: Client) -> None:
        """A counted connection has ended."""
        if self._connections:
            self._anvil.disconnect(self._ident(client))

    async def may_handshake(self, client: Client) -> bool:
        """Whether the client may begin a TLS handshake; counts nothing."""
        if not self._handshakes:
            return True
        counts = await self._anvil.count("newtls", self._ident(client), only_report=True)
        return counts.rate <= self._handshakes

    async def handshake(self, client: Client, shown: str) -> Reply | None:
        """Count a full TLS handshake."""
        if not self._handshakes:
            return None
        rate = (await self._anvil.count("newtls", self._ident(client))).rate
        if rate <= self._handshakes:
            return None
        self._warn("New TLS session rate limit exceeded", rate, shown)
        return Reply(421, "4.7.0", f"{self._params.myhostname} {self.too_many_handshakes(shown)}")

    @staticmethod
    def too_many_handshakes(shown: str) -> str:
        """The text of a refusal."""
        return f"{_TOO_MANY_HANDSHAKES} {shown}"

    async def auth(self, client: Client, shown: str) -> Reply | None:
        """Count an AUTH command."""
        return await self._count("auth", self._logins, client, shown)

    async def message(self, client: Client, shown: str) -> Reply | None:
        """Count a MAIL command."""
        return await self._count("message", self._messages, client, shown)

    async def recipient(self, client: Client, shown: str) -> Reply | None:
        """Count a RCPT command."""
        return await self._count("recipient", self._recipients, client, shown)

    async def _count(self, name: str, event: _Event, client: Client, shown: str) -> Reply | None:
        if not event.limit:
            return None
        rate = (await self._anvil.count(name, self._ident(client))).rate
        if rate <= event.limit:
            return None
        self._warn(event.warning, rate, shown)
        return Reply(450, "4.7.1", f"{event.error} {client.address}")

    def _warn(self, what: str, number: int, shown: str) -> None:
        LOG.event(LimitExceeded(what, number, shown, self._service), Level.WARNING)

    def _ident(self, client: Client) -> str:
        return f"{self._service}:{self._network(client.address)}"

    def _network(self, address: str) -> str:
        """The network of the address, which is counted in its place."""
        params = self._params
        if ":" in address:
            length, whole = params.smtpd_client_ipv6_prefix_length, 128
        else:
            length, whole = params.smtpd_client_ipv4_prefix_length, 32
        if length == whole:
            return address
        try:
            network = ipaddress.ip_network(f"{address}/{length}", strict=False)
        except ValueError:
            return address  # a client without one, "unknown"
        return str(network)
