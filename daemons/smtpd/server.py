"""What all sessions of a process share: parameters, tables, clients of other services."""

import os
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from daemons.smtpd.before_queue import Filter
from daemons.smtpd.client_rules import ClientRules
from daemons.smtpd.command_rules import CommandRules
from daemons.smtpd.ehlo import Announcements
from daemons.smtpd.guessing import Guesses
from daemons.smtpd.logins import Logins
from daemons.smtpd.params import SmtpdParams
from daemons.smtpd.prepared import Options, Prepared
from daemons.smtpd.rates import Rates
from daemons.smtpd.received import Station
from daemons.smtpd.tls_setup import TlsSetup
from daemons.smtpd.transaction import RouteFinder
from libmail.clients.anvil import AnvilClient
from libmail.clients.cleanup import MailClient
from libmail.clients.flush import FlushClient
from libmail.clients.notice import Postmaster
from libmail.clients.policy import PolicyServers
from libmail.clients.verify import VerifyClient
from libmail.ipc.messages import ResolveReply
from libmail.lookup.context import Lookups, RouteQuestion
from libmail.lookup.peer import PeerNames, protocols_of
from libmail.lookup.policies import PolicyQuestion
from libmail.lookup.restrictions import Restrictions
from libmail.lookup.verification import VerifyQuestion
from libmail.message.dates import rfc5322_date

__all__ = ["Server"]


@dataclass(slots=True)
class Server:
    """Shared by the sessions of a process."""

    prepared: Prepared
    rewrite: RouteFinder
    cleanup: MailClient
    stand_alone: bool = False
    filter: Filter | None = field(init=False)
    stopping: bool = False
    peers: PeerNames = field(init=False)
    restrictions: Restrictions = field(init=False)
    lookups: Lookups = field(init=False)
    clients: ClientRules = field(init=False)
    commands: CommandRules = field(init=False)
    rates: Rates = field(init=False)
    guesses: Guesses = field(init=False)
    logins: Logins = field(init=False)
    tls: TlsSetup = field(init=False)
    service: str = field(init=False)
    flush: FlushClient = field(init=False)
    postmaster: Postmaster = field(init=False)
    params: SmtpdParams = field(init=False)
    station: Station = field(init=False)
    announcements: Announcements = field(default_factory=Announcements)
    options: Options = field(init=False)
    _pid: int = field(default_factory=os.getpid)
    _date: tuple[int, str] = (0, "")
    _space_checked: float = 0.0
    _space: int = 0
    _messages: int = 0

    def __post_init__(self) -> None:
        prepared = self.prepared
        params = self.params = prepared.params
        self.options = prepared.options
        lookup = params.smtpd_peername_lookup
        local = "localhost" if self.stand_alone else ""
        protocols = protocols_of(params.inet_protocols)
        self.peers = PeerNames(prepared.resolver, protocols, lookup=lookup, local=local)
        self.tls = prepared.tls
        self.filter = None if prepared.filter is None else Filter(prepared.filter)
        self.service = prepared.limits.service
        anvil = AnvilClient("private/anvil")
        self.rates = Rates(prepared.limits, anvil)
        self.guesses = Guesses(
            prepared.guesses, prepared.limits.exceptions, prepared.limits.service, anvil
        )
        self.logins = Logins(prepared.logins, must_encrypt=self.options.must_encrypt)
        self.restrictions = prepared.restrictions.restrictions
        policies = PolicyServers(prepared.restrictions.policies)
        verify = VerifyClient(
            f"private/{params.address_verify_service_name}", timeout=params.ipc_timeout
        )
        self.lookups = prepared.lookups(
            {RouteQuestion: self._resolve, PolicyQuestion: policies.ask, VerifyQuestion: verify.ask}
        )
        self.clients = ClientRules(params, self.lookups)
        self.commands = CommandRules(self.lookups)
        self.station = Station(
            params.myhostname,
            params.mail_name,
            params.smtpd_hide_client_session,
            self.logins.params.smtpd_sasl_authenticated_header,
            self.tls,
        )
        self.flush = FlushClient(prepared.flush_params, prepared.flush_domains)
        self.postmaster = Postmaster(prepared.notice_params, self.cleanup)

    def _resolve(self, question: RouteQuestion) -> Awaitable[ResolveReply]:
        return self.rewrite.resolve_completed(question.where, question.key)

    def instance(self) -> str:
        """A unique id, by which a policy server knows requests about the same message."""
        self._messages += 1
        now = time.time_ns() // 1000
        return f"{self._pid:x}.{now // 1000000:x}.{now % 1000000:x}.{self._messages:x}"

    # time and space

    def date(self) -> str:
        """The current time for a header; computed once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, rfc5322_date(now))
        return self._date[1]

    def free_space(self) -> int:
        """Free octets in the queue file system; determined once a second."""
        now = time.monotonic()
        if now - self._space_checked > 1.0:
            status = os.statvfs(".")
            self._space = status.f_bavail * status.f_frsize
            self._space_checked = now
        return self._space
