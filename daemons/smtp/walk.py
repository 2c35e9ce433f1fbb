"""One delivery request: tries the servers of its destinations until no recipient is left.

Cached sessions are tried first: for the destination, then for each server. The next server is tried
when one cannot be reached, or leaves recipients to others. The walk ends when the ledger is
complete; recipients that are left get the reason of the last failure.
"""

import socket
import time
from collections.abc import Sequence
from typing import Final

from daemons.smtp.conversation import Conversation, Mail
from daemons.smtp.events import ConnectFailed
from daemons.smtp.failure import Failure
from daemons.smtp.ledger import NO_REASON, Ledger
from daemons.smtp.outgoing import Outgoing
from daemons.smtp.recording import WatchedWire
from daemons.smtp.replyfilter import LineFilter
from daemons.smtp.requiretls import Demand
from daemons.smtp.route import Route
from daemons.smtp.session import Session, SessionKey
from daemons.smtp.shared import SmtpClient, SourceUnusable
from daemons.smtp.tls_policy import PLAIN, ServerTlsPolicy
from libmail.agents.delivery import Delivery
from libmail.agents.handover import hand_over
from libmail.ipc.messages import DeliverFlag
from libmail.log import LOG
from libmail.lookup.next_hop import (
    BadDestination,
    Destination,
    split_destinations,
)
from libmail.lookup.servers import NoServers, Server
from libmail.net.secure_wire import SecureWire
from libmail.net.wire import Address
from libmail.service.pool import ServiceUnavailable
from libmail.tables.table import TableError
from libmail.tls.levels import Level
from libmail.tls.policy_entry import PolicyError

__all__ = ["Walk"]

_NO_TRANSPORT: Final = Failure("4.3.0", "mail transport unavailable")
_SMTPS: Final = 465
_KEEP: Final = int(DeliverFlag.KEEP)
_NO_DEMAND: Final = Demand.DISABLE  # members of enums are slow to find


class Walk:
    """Delivers one request."""

    def __init__(self, client: SmtpClient, delivery: Delivery, outgoing: Outgoing) -> None:
        self._client = client
        self._settings = client.settings
        self._delivery = delivery
        self._request = delivery.request
        self._ledger = Ledger(delivery, client.settings)
        self._mail = Mail(delivery=delivery, outgoing=outgoing, ledger=self._ledger)
        self._loops = False  # this system is the best MX host of the destination tried last
        self._falls_back = False  # that destination is an smtp_fallback_relay

    async def run(self) -> None:
        """Deliver the message, until every recipient has an outcome."""
        params, ledger = self._settings.params, self._ledger
        texts = [*split_destinations(self._request.nexthop)]
        fallback = [] if self._settings.lmtp else list(params.smtp_fallback_relay)
        while texts and ledger.left:
            text = texts.pop(0)
            self._falls_back = text in params.smtp_fallback_relay and not fallback
            if not texts:
                texts, fallback = fallback, []
            among_mx = await self._try_destination(text, last=not texts)
            if among_mx:
                # A fallback relay that is another MX host would send the mail back to us.
                texts = [one for one in texts if one not in params.smtp_fallback_relay]
                fallback = []
        if ledger.left:
            await self._give_up()

    # destinations

    async def _try_destination(self, text: str, *, last: bool) -> bool:
        """Returns whether this system is an MX host of the destination."""
        self._loops = False
        self._ledger.set_wanted_tls("none")
        route = await self._route(text)
        if route is None:
            return False
        if route.destination.path:
            await self._try_path(route, last=last)
            return False
        if self._client.cache:
            tls = await self._policy_of_all(route)
            if tls is not None and await self._reuse(route.key(tls.key), route, tls, last=False):
                return False
        try:
            decisions = self._client.decisions
            servers, among_mx = await decisions.choice.servers(
                decisions.lookups, route.destination, loop_detect=route.loop_detect
            )
        except NoServers as error:
            for text in error.warnings:
                LOG.warning(text)
            self._ledger.why = Failure(error.dsn, error.reason, site=True)
            self._loops = error.best
            return error.loop
        await self._try_servers(servers, route, last=last)
        return among_mx

    async def _route(self, text: str) -> Route | None:
        """The route; None, with the reason in the ledger, for an invalid destination."""
        client, outgoing = self._client, self._mail.outgoing
        decisions = client.decisions
        keep = self._settings.params.smtp_connection_cache_on_demand and (
            self._request.flags & _KEEP != 0
        )
        try:
            route = client.route(text, keep)
        except BadDestination as error:
            LOG.warning(str(error))
            reason = f"Server configuration error: {error}"
            self._ledger.why = Failure("4.3.5", reason, site=True)
            return None
        if not keep and decisions.cache_destinations and await self._listed(route.destination):
            route = client.route(text, True)
        if outgoing.asks_for_nothing and decisions.logins is None:
            return route
        demand = await self._demand(route.destination) if outgoing.requires_tls else _NO_DEMAND
        if demand is None:
            return None
        return route._replace(
            smtputf8=outgoing.needs_smtputf8,
            login=() if decisions.logins is None else decisions.logins.key(self._request.sender),
            demand=demand,
        )

    async def _demand(self, destination: Destination) -> Demand | None:
        """How strictly REQUIRETLS of the message is taken there; None, with the reason in the
        ledger, if that is not known."""
        policy, ledger = self._client.decisions.requiretls, self._ledger
        demand: Demand | None = _NO_DEMAND
        if policy is not None:
            try:
                demand = await policy.of(self._tls_domain(destination))
            except TableError as error:
                LOG.warning(str(error))
                demand = None
        ledger.requires_tls = demand is not _NO_DEMAND
        if demand is None:
            ledger.why = Failure("4.3.5", "REQUIRETLS policy lookup error", site=True)
            ledger.set_actual_tls(None)
        return demand

    def _tls_domain(self, destination: Destination) -> str:
        """What TLS policies are looked up by, without brackets and port."""
        return self._settings.params.myhostname if destination.path else destination.host

    async def _listed(self, destination: Destination) -> bool:
        """smtp_connection_cache_destinations: sessions with the destination are to be cached."""
        listed = self._client.decisions.cache_destinations
        return await listed.match(destination.path or destination.host)

    # servers

    async def _tls_policy(self, route: Route, host: str) -> ServerTlsPolicy:
        """The TLS policy of a server; host: "" for any of the destination. Raises PolicyError."""
        nexthop = self._tls_domain(route.destination)
        decisions, optional = self._client.decisions, self._mail.outgoing.tls_optional
        tls = await decisions.tls.of(
            route.text, nexthop, host, decisions.lookups, optional=optional
        )
        self._ledger.set_wanted_tls(tls.wanted.label)
        return tls

    async def _server_tls_policy(
        self, route: Route, server: Server | None
    ) -> ServerTlsPolicy | None:
        """The TLS policy of one server, with its TLSA records where the policy asks for them.

        server: None for the UNIX socket of the destination. None, with the reason in the ledger, if
        the policy is not known.
        """
        decisions = self._client.decisions
        host = self._settings.params.myhostname if server is None else server.host
        port = 0 if server is None else route.port(server)
        try:
            tls = await self._tls_policy(route, host)
            return await tls.at(server, port, decisions.dane, decisions.lookups)
        except PolicyError as error:
            LOG.warning(f"TLS policy lookup for {route.text}/{host}: {error.reason}")
            if self._client.reporter is not None and not self._mail.outgoing.tls_optional:
                self._client.reporter.no_session(route.destination.host, server, error)
            self._ledger.why = Failure(error.dsn, error.reason, site=True)
            return None

    async def _policy_of_all(self, route: Route) -> ServerTlsPolicy | None:
        """The TLS policy of cached sessions with any server; None where there can be none."""
        try:
            tls = await self._tls_policy(route, "")
        except PolicyError as error:
            self._ledger.why = Failure(error.dsn, error.reason, site=True)
            return None
        return None if route.demand.foresee(tls.policy.level).lacks else tls

    async def _try_servers(self, servers: Sequence[Server], route: Route, *, last: bool) -> None:
        sessions = self._settings.params.smtp_mx_session_limit
        for number, server in enumerate(servers, 1):
            final = last and (number == len(servers) or sessions == 1)
            tls = await self._server_tls_policy(route, server)
            port = route.port(server)
            if tls is None or not self._wrapping_fits(tls, port):
                continue
            if not self._may_connect(route, tls, server.host):
                continue
            if self._client.cache:
                where = route.server_key(server.host, server.address, port, tls.key)
                if await self._reuse(where, route, tls, last=final):
                    return
            if await self._try_server(server, route, tls, last=final):
                sessions -= 1
            if not self._ledger.left or sessions == 0:
                return

    def _wrapping_fits(self, tls: ServerTlsPolicy, port: int) -> bool:
        """Whether the TLS level allows wrapper mode, if that is on; otherwise nothing is sent."""
        wrapped = self._settings.params.smtp_tls_wrappermode
        if not wrapped and port != _SMTPS:
            return True
        prefix = "lmtp" if self._settings.lmtp else "smtp"
        level = f'"{prefix}_tls_security_level = encrypt" (or stronger)'
        if wrapped:
            if not tls.policy.level.enforced:
                LOG.warning(f"{prefix}_tls_wrappermode requires {level}")
                return False
        else:
            mode = f'"{prefix}_tls_wrappermode = yes"'
            LOG.info(f"SMTPS wrappermode (TCP port {_SMTPS}) requires setting {mode}, and {level}")
        return True

    def _may_connect(self, route: Route, tls: ServerTlsPolicy, host: str) -> bool:
        """Whether the server may meet REQUIRETLS; else the reason is in the ledger."""
        verdict = route.demand.foresee(tls.policy.level)
        obstacle = verdict.obstacle(host)
        if obstacle is None:
            return True
        self._ledger.set_requiretls(verdict)
        self._ledger.blame(obstacle)
        return False

    async def _try_server(
        self, server: Server, route: Route, tls: ServerTlsPolicy, *, last: bool
    ) -> bool:
        """Returns whether there was a session."""
        session = await self._connect(server, route.port(server), tls)
        if session is None:
            return False
        if await self._begin(session, route, tls, last=last):
            await self._try_server(server, route, tls.without_tls, last=last)
        return True

    async def _try_path(self, route: Route, *, last: bool) -> None:
        path = route.destination.path
        host = self._settings.params.myhostname
        tls = await self._server_tls_policy(route, None)
        if tls is None or not self._may_connect(route, tls, host):
            return
        if tls.policy.level is Level.MAY:
            tls = ServerTlsPolicy(PLAIN, tls.where, Level.NONE)  # nobody can eavesdrop there
            self._ledger.set_wanted_tls(tls.wanted.label)
        key = route.key(tls.key)
        if self._client.cache and await self._reuse(key, route, tls, last=False):
            return
        try:
            wire = await self._open(path, socket.AF_UNIX, tls)
        except OSError as error:
            reason = f"connect to {host}[{path}]: {error.strerror}"
            self._ledger.why = Failure("4.4.1", reason, site=True)
            return
        await self._begin(self._session(wire, host, path, 0), route, tls, last=last)

    async def _reuse(
        self, key: SessionKey, route: Route, tls: ServerTlsPolicy, *, last: bool
    ) -> bool:
        """Use cached sessions. Returns whether no recipient is left."""
        while self._ledger.left and (session := self._client.cache.take(key)) is not None:
            self._ledger.last = last
            await Conversation(self._client, self._mail, session, tls, route).resume()
        return not self._ledger.left

    async def _begin(
        self, session: Session, route: Route, tls: ServerTlsPolicy, *, last: bool
    ) -> bool:
        """Deliver in a new session. Returns whether to retry without TLS."""
        self._ledger.last = last
        conversation = Conversation(self._client, self._mail, session, tls, route)
        loop_detect = route.loop_detect and session.port == route.destination.port
        await conversation.begin(loop_detect=loop_detect)
        return conversation.retry_without_tls and bool(self._ledger.left)

    async def _connect(self, server: Server, port: int, tls: ServerTlsPolicy) -> Session | None:
        """A new session; None, with the reason in the ledger, if the server cannot be reached."""
        family = socket.AF_INET6 if server.ipv6 else socket.AF_INET
        watched = await self._watches(tls.where.nexthop, server)
        try:
            wire = await self._open((server.address, port), family, tls, watched=watched)
        except SourceUnusable:
            LOG.info("server configuration error")
            self._ledger.why = Failure("4.4.0", "server configuration error", site=True)
            return None
        except OSError as error:
            failed = ConnectFailed(server.host, server.address, port, str(error.strerror))
            LOG.event(failed)
            self._ledger.why = Failure("4.4.1", failed.text(), site=True)
            return None
        return self._session(wire, server.host, server.address, port)

    async def _watches(self, nexthop: str, server: Server) -> bool:
        """debug_peer_list."""
        watched = self._client.decisions.watched
        if not watched:
            return False
        if await watched.match(nexthop, ""):
            return True
        return await watched.match(server.host, server.address)

    async def _open(
        self, address: Address, family: int, tls: ServerTlsPolicy, *, watched: bool = False
    ) -> SecureWire:
        """A connection. Raises OSError, SourceUnusable."""
        self._ledger.set_actual_tls(None)
        wire = self._client.wire(family, watched=watched)
        try:
            await wire.connect(address, silent=self._settings.wraps(tls.policy.level))
        except OSError:
            wire.close()
            raise
        return wire

    def _session(self, wire: SecureWire, host: str, address: str, port: int) -> Session:
        session = Session(wire, host, address, port)
        if isinstance(wire, WatchedWire):
            wire.peer = session.relay
        if self._client.reply_filter is not None:
            wire.filter_replies(LineFilter(self._client.reply_filter, session.relay))
        return session

    # the end

    async def _give_up(self) -> None:
        """No server is left."""
        params = self._settings.params
        failure = self._ledger.why or NO_REASON
        if not failure.temporary and not self._settings.lmtp:
            relay = params.relayhost
            culprit = ""
            if self._falls_back:
                culprit = "smtp_fallback_relay"
            elif relay and self._request.nexthop == relay:
                culprit = "relayhost"
            if culprit:
                # It did not resolve, or it is this system: the mail is not to blame.
                LOG.warning(f"{culprit} configuration problem")
                failure = Failure("4.3.5", failure.reason, failure.mta, failure.diagnostic, True)
            elif self._loops and params.best_mx_transport:
                await self._pass_on(params.best_mx_transport)
                return
        if failure.temporary:
            self._delivery.fail_destination(failure.dsn, failure.reason)
        if not self._delivery.connected:
            self._delivery.connected = time.time()
        await self._ledger.finish(self._ledger.left, failure, relay="none")

    async def _pass_on(self, spec: str) -> None:
        """best_mx_transport: another agent delivers, and reports."""
        delivery, ledger = self._delivery, self._ledger
        timeout = self._settings.params.ipc_timeout
        for recipient in tuple(ledger.left):
            try:
                final = await hand_over(delivery, recipient, self._request.sender, spec, timeout)
            except ServiceUnavailable as error:
                LOG.warning(f"{self._request.queue_id}: {error}")
                await ledger.finish([recipient], _NO_TRANSPORT, relay="none")
            else:
                delivery.close(recipient, final=final)
                ledger.drop(recipient)
