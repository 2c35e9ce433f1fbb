"""Rate and concurrency limits for clients: smtpd_client_*_limit. anvil(8) counts.

anvil is not asked where nothing is limited, about smtpd_client_event_limit_exceptions, and about
events of which it has lent us some, see libmail.clients.anvil. Clients of one network count as one
client, as smtpd_client_ipv4_prefix_length (or ipv6) says.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final, NamedTuple

from daemons.smtpd.events import LimitExceeded
from libmail.clients.anvil import Account, AnvilClient
from libmail.config import Config
from libmail.log import LOG, Level
from libmail.lookup.facts import Client
from libmail.smtp.reply import Reply
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["ClientRates", "Limits", "RateParams", "Rates", "open_limits"]


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

    name: str
    limit: int
    warning: str
    error: str


_TOO_MANY_CONNECTIONS: Final = "Error: too many connections from"
_TOO_MANY_HANDSHAKES: Final = "Error: too many new TLS sessions from"
_HANDSHAKES: Final = "newtls"


class Rates:
    """The limits, for all clients of a process."""

    def __init__(self, limits: Limits, anvil: AnvilClient) -> None:
        params = self.params = limits.params
        self.service = limits.service
        self._exceptions = limits.exceptions
        self._anvil = anvil
        self.connections = bool(
            params.smtpd_client_connection_count_limit or params.smtpd_client_connection_rate_limit
        )
        self.handshakes = params.smtpd_client_new_tls_session_rate_limit
        self.logins = _Event(
            "auth",
            params.smtpd_client_auth_rate_limit,
            "AUTH command rate limit exceeded",
            "Error: too many AUTH commands from",
        )
        self.messages = _Event(
            "message",
            params.smtpd_client_message_rate_limit,
            "Message delivery request rate limit exceeded",
            "Error: too much mail from",
        )
        self.recipients = _Event(
            "recipient",
            params.smtpd_client_recipient_rate_limit,
            "Recipient address rate limit exceeded",
            "Error: too many recipients from",
        )
        events = (self.logins, self.messages, self.recipients)
        limited = {event.name: event.limit for event in events if event.limit}
        self._limited = {**limited, **({_HANDSHAKES: self.handshakes} if self.handshakes else {})}

    async def of(self, client: Client) -> "ClientRates | None":
        """What counts the events of a session; None for a client without limits.

        They apply while the list of exceptions fails.
        """
        if not self._limited and not self.connections:
            return None
        try:
            if await self._exceptions.match(client.name, client.address):
                return None
        except TableRetry as error:
            LOG.warning(str(error))
        account = self._anvil.account(self._ident(client), self._limited)
        return ClientRates(self, client.address, account)

    @staticmethod
    def too_many_handshakes(shown: str) -> str:
        """The text of a refusal."""
        return f"{_TOO_MANY_HANDSHAKES} {shown}"

    def warn(self, what: str, number: int, shown: str) -> None:
        """Log that a limit was exceeded."""
        LOG.event(LimitExceeded(what, number, shown, self.service), Level.WARNING)

    def _ident(self, client: Client) -> str:
        return f"{self.service}:{self._network(client.address)}"

    def _network(self, address: str) -> str:
        """The network of the address, which is counted in its place."""
        params = self.params
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


class ClientRates:
    """Counts the events of one session and applies the limits.

    Methods return the reply that refuses an event beyond its limit, or None. shown: the client, for
    the log. At the end `leave` has to be called. connections: that the client has, as counted by
    `connect`; 0 where that does not count them.
    """

    __slots__ = ("_account", "_address", "_connected", "_rates", "connections")

    def __init__(self, rates: Rates, address: str, account: Account) -> None:
        self._rates = rates
        self._address = address
        self._account = account
        self._connected = False
        self.connections = 0

    async def connect(self, shown: str) -> Reply | None:
        """Count the connection."""
        rates, params = self._rates, self._rates.params
        if not rates.connections:
            return None
        self._connected = True
        counts = await self._account.connect()
        self.connections = counts.connections
        for number, limit, what in (
            (counts.connections, params.smtpd_client_connection_count_limit, "concurrency"),
            (counts.rate, params.smtpd_client_connection_rate_limit, "rate"),
        ):
            if 0 < limit < number:
                rates.warn(f"Connection {what} limit exceeded", number, shown)
                text = f"{params.myhostname} {_TOO_MANY_CONNECTIONS} {self._address}"
                return Reply(421, "4.7.0", text)
        return None

    def leave(self) -> None:
        """The session is over."""
        self._account.leave(connected=self._connected)

    async def may_handshake(self) -> bool:
        """Whether the client may begin a TLS handshake; counts nothing."""
        limit = self._rates.handshakes
        if not limit or self._account.has(_HANDSHAKES):
            return True
        return (await self._account.ask(_HANDSHAKES, only_report=True)).rate <= limit

    async def handshake(self, shown: str) -> Reply | None:
        """Count a full TLS handshake."""
        rates = self._rates
        if not rates.handshakes or self._account.take(_HANDSHAKES):
            return None
        rate = (await self._account.ask(_HANDSHAKES)).rate
        if rate <= rates.handshakes:
            return None
        rates.warn("New TLS session rate limit exceeded", rate, shown)
        return Reply(421, "4.7.0", f"{rates.params.myhostname} {rates.too_many_handshakes(shown)}")

    async def auth(self, shown: str) -> Reply | None:
        """Count an AUTH command."""
        return await self._count(self._rates.logins, shown)

    async def message(self, shown: str) -> Reply | None:
        """Count a MAIL command."""
        return await self._count(self._rates.messages, shown)

    async def recipient(self, shown: str) -> Reply | None:
        """Count a RCPT command."""
        return await self._count(self._rates.recipients, shown)

    async def _count(self, event: _Event, shown: str) -> Reply | None:
        if not event.limit or self._account.take(event.name):
            return None
        rate = (await self._account.ask(event.name)).rate
        if rate <= event.limit:
            return None
        self._rates.warn(event.warning, rate, shown)
        return Reply(450, "4.7.1", f"{event.error} {self._address}")
