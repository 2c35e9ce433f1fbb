"""One delivery request: over the servers of its destinations until no recipient is left."""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, Literal

from daemons.smtp.cache import SessionCache
from daemons.smtp.destination import (
    BadDestination,
    Destination,
    LookupFailed,
    Lookups,
    Server,
    parse_destination,
    split_destinations,
)
from daemons.smtp.failure import (
    Failure,
    LocalTrouble,
    Lost,
    SiteFailed,
    local_trouble,
    lost,
    said,
)
from daemons.smtp.outgoing import Outgoing
from daemons.smtp.pix import DELAY_DOT, PixWorkarounds
from daemons.smtp.poller import Poller
from daemons.smtp.recording import Notices, RecordingWire, blame, note_sent
from daemons.smtp.replyfilter import LineFilter, ReplyFilter
from daemons.smtp.secrecy import NO_TLS, Secrecy, is_mandatory, tls_status
from daemons.smtp.session import Session
from daemons.smtp.settings import Settings
from daemons.smtp.wire import Wire
from libmail.clients.delivery import Delivery, Sent
from libmail.clients.handover import hand_over
from libmail.ipc.messages import DeliverFlag, DsnNotify, Recipient
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.client import (
    BODY,
    DATA,
    END_OF_DATA,
    MAIL,
    RCPT,
    RSET,
    Extensions,
    Next,
    ServerReply,
    Transaction,
    parse_extensions,
)
from libmail.smtp.client_commands import UnsafeAddress
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.table import TableRetry

__all__ = ["Attempt", "Surroundings"]

_NO_REASON: Final = Failure("4.3.0", "server unavailable or unable to receive mail")
_NO_TRANSPORT: Final = Failure("4.3.0", "mail transport unavailable")
_SUCCESS: Final = int(DsnNotify.SUCCESS)
_KEEP: Final = int(DeliverFlag.KEEP)


class Surroundings:
    """What all deliveries of the process share."""

    def __init__(
        self,
        settings: Settings,
        lookups: Lookups,
        default_port: int,
        discard_maps: Maps,
        cached_destinations: StringList,
        secrecy: Secrecy,
        pix: PixWorkarounds,
        reply_filter: ReplyFilter | None = None,
        notices: Notices | None = None,
    ) -> None:
        self.settings = settings
        self.lookups = lookups
        self.default_port = default_port
        self.discard_maps = discard_maps
        self.cached_destinations = cached_destinations
        self.secrecy = secrecy
        self.pix = pix
        self.reply_filter = reply_filter or None
        self.notices = notices or None
        self.wire: type[Wire] = RecordingWire if notices else Wire
        self.cache = SessionCache(settings.params)
        self._poller: Poller | None = None
        # Servers of one kind answer EHLO alike, message after message.
        self.extensions: Callable[[ServerReply, tuple[str, ...]], Extensions]
        self.extensions = lru_cache(256)(parse_extensions)

    @property
    def poller(self) -> Poller:
        """Of the running event loop."""
        if self._poller is None:
            self._poller = Poller(asyncio.get_running_loop())
        return self._poller

    async def discard(self, address: str) -> tuple[str, ...]:
        """EHLO keywords to overlook from this server. Raises TableRetry."""
        found = await self.discard_maps.find(address)
        if found is not None:
            return tuple(re.split(r"[\s,]+", found))
        return self.settings.params.smtp_discard_ehlo_keywords


class Attempt:
    """The work on one request."""

    def __init__(self, delivery: Delivery, outgoing: Outgoing, around: Surroundings) -> None:
        self._delivery = delivery
        self._request = delivery.request
        self._outgoing = outgoing
        self._around = around
        self._settings = around.settings
        self._left = list(delivery.request.recipients)
        self._why: Failure | None = None
        self._probe = delivery.verify_only
        # Of what a session was made for depends which servers were passed over for it.
        self._made_for = "\0smtputf8" if outgoing.needs_smtputf8 else ""
        self._keep = False
        self._level = "none"  # of TLS, that this destination is to have
        self._tls = ""  # what became of that, for the log
        self._last = False  # no other server is left to try
        self._loops = False  # this system is the best MX host of the destination tried last

    async def run(self) -> None:
        """Give every recipient an outcome."""
        params = self._settings.params
        texts = split_destinations(self._request.nexthop)
        fallback = [] if self._settings.lmtp else list(params.smtp_fallback_relay)
        while texts and self._left:
            text = texts.pop(0)
            if not texts:
                texts, fallback = fallback, []
            among_mx = await self._try_destination(text, last=not texts)
            if among_mx:
                # A fallback relay that is another MX host would send the mail back to us.
                texts = [one for one in texts if one not in params.smtp_fallback_relay]
                fallback = []
        if self._left:
            await self._give_up()

    # servers

    async def _try_destination(self, text: str, *, last: bool) -> bool:
        """Returns whether this system is an MX host of the destination."""
        lmtp = self._settings.lmtp
        self._loops = False
        self._tls = ""
        try:
            destination = parse_destination(text, self._around.default_port, lmtp=lmtp)
        except BadDestination as error:
            LOG.warning(str(error))
            self._why = Failure("4.3.5", f"Server configuration error: {error}", site=True)
            return False
        if not destination.path and await self._must_wait(text):
            return False
        self._keep = await self._wants_to_keep(destination)
        key = f"{text.lower()}\0{destination.port}{self._made_for}"
        cache = self._around.cache
        if cache and await self._reuse(key, key, last=False):
            return False
        if destination.path:
            await self._try_path(destination.path, key, last=last)
            return False
        detect = not lmtp and destination.port == self._around.default_port
        try:
            servers, among_mx = await self._around.lookups.servers(destination, loop_detect=detect)
        except LookupFailed as error:
            self._why = error.failure
            self._loops = error.best
            return error.loop
        await self._try_servers(servers, destination, key, last=last)
        return among_mx

    async def _wants_to_keep(self, destination: Destination) -> bool:
        """Whether sessions with its servers are to be kept for the next message."""
        if self._settings.params.smtp_connection_cache_on_demand and self._request.flags & _KEEP:
            return True
        listed = self._around.cached_destinations
        return bool(listed) and await listed.match(destination.path or destination.host)

    async def _must_wait(self, text: str) -> bool:
        """Whether this destination must not get mail in the clear; then that is the reason."""
        try:
            self._level = await self._around.secrecy.level(text)
            if not is_mandatory(self._level):
                return False
            reason = NO_TLS
        except TableRetry as error:
            reason = f"TLS policy lookup error for {text}: {error}"
        self._why = Failure("4.7.5", reason, site=True)
        return True

    def _note_tls(self, actual: str | None) -> None:
        if self._settings.params.smtp_log_tls_feature_status:
            self._tls = tls_status(self._level, actual)

    async def _try_servers(
        self, servers: Sequence[Server], destination: Destination, key: str, *, last: bool
    ) -> None:
        sessions = self._settings.params.smtp_mx_session_limit
        detect = not self._settings.lmtp and destination.port == self._around.default_port
        for number, server in enumerate(servers, 1):
            final = last and (number == len(servers) or sessions == 1)
            where = f"{server.address}\0{destination.port}{self._made_for}"
            if self._around.cache and await self._reuse(where, key, last=final):
                return
            session = await self._connect(server, destination.port)
            if session is None:
                continue
            self._last = final
            await self._serve(session, (key, where), loop_detect=detect)
            sessions -= 1
            if not self._left or sessions == 0:
                return

    async def _reuse(self, key: str, also: str, *, last: bool) -> bool:
        """Use sessions that were kept. Returns whether that was all there was to do."""
        while self._left and (session := self._around.cache.take(key)) is not None:
            self._last = last
            self._note_tls("none")
            where = f"{session.address}\0{session.port}{self._made_for}"
            keys = (also, key) if also != key else (key, where)
            await self._transact(session, keys)
            await self._tell_postmaster(session)
        return not self._left

    async def _connect(self, server: Server, port: int) -> Session | None:
        """None, with the reason remembered, for a server that cannot be reached."""
        self._note_tls(None)
        params = self._settings.params
        family = socket.AF_INET6 if server.ipv6 else socket.AF_INET
        bind = params.smtp_bind_address6 if server.ipv6 else params.smtp_bind_address
        wire = None
        try:
            wire = self._around.wire(
                self._around.poller,
                family,
                self._settings.limits,
                per_request=params.smtp_per_request_deadline,
                bind=bind,
            )
            await wire.connect((server.address, port))
        except OSError as error:
            if wire is not None:
                wire.close()
            reason = f"connect to {server.host}[{server.address}]:{port}: {error.strerror}"
            LOG.info(reason)
            self._why = Failure("4.4.1", reason, site=True)
            return None
        return self._session(wire, server.host, server.address, port)

    def _session(self, wire: Wire, host: str, address: str, port: int) -> Session:
        session = Session(wire, host, address, port)
        if self._around.reply_filter is not None:
            wire.filter_replies(LineFilter(self._around.reply_filter, session.relay))
        return session

    async def _try_path(self, path: str, key: str, *, last: bool) -> None:
        host = self._settings.params.myhostname
        self._note_tls(None)
        wire = self._around.wire(
            self._around.poller,
            socket.AF_UNIX,
            self._settings.limits,
            per_request=self._settings.params.smtp_per_request_deadline,
        )
        try:
            await wire.connect(path)
        except OSError as error:
            wire.close()
            reason = f"connect to {host}[{path}]: {error.strerror}"
            self._why = Failure("4.4.1", reason, site=True)
            return
        self._last = last
        await self._serve(self._session(wire, host, path, 0), (key,), loop_detect=False)

    async def _serve(self, session: Session, keys: tuple[str, ...], *, loop_detect: bool) -> None:
        """Greet a new server and give it the message."""
        try:
            discard = self._settings.params.smtp_discard_ehlo_keywords
            if self._around.discard_maps.tables:
                discard = await self._around.discard(session.address)
            await session.greet(
                self._settings,
                lambda reply: self._around.extensions(reply, discard),
                self._request,
                self._around.pix,
                loop_detect=loop_detect,
            )
        except TableRetry:
            session.wire.close()
            failure = Failure("4.3.0", "table lookup error", error_class="data")
            await self._fail(self._left, failure, session)
        except Lost as error:
            session.wire.close()
            await self._fail(self._left, lost(session, error), session)
        except SiteFailed as error:
            await session.quit(skip_response=self._settings.params.smtp_skip_quit_response)
            await self._fail(self._left, error.failure, session)
        except LocalTrouble:
            await session.quit(skip_response=True)
            await self._fail(self._left, local_trouble(session), session)
        else:
            self._note_tls("none")
            await self._transact(session, keys)
        await self._tell_postmaster(session)

    async def _tell_postmaster(self, session: Session) -> None:
        """Of what was wrong in the session, if that is wanted; there is nothing to tell twice."""
        if self._around.notices is not None:
            sender = self._request.sender
            await self._around.notices.about(session.wire, session.relay, sender)

    # one transaction

    async def _transact(self, session: Session, keys: tuple[str, ...]) -> None:
        self._delivery.connected = time.time()
        session.uses += 1
        reused = session.uses > 1
        offered = session.extensions
        params = self._settings.params
        keep = self._keep and self._around.cache.fit(session)
        try:
            obstacle = self._outgoing.obstacle(session, offered)
            mail = self._outgoing.mail(offered)
            rcpts = self._outgoing.rcpts(self._left, offered)
        except UnsafeAddress:
            obstacle = Failure("5.1.3", "bad address syntax")
            mail, rcpts = b"", []
        if obstacle is not None:
            await session.quit(skip_response=params.smtp_skip_quit_response)
            await self._fail(self._left, obstacle, session)
            return
        transaction = Transaction(
            mail,
            rcpts,
            pipelining=offered.pipelining,
            lmtp=self._settings.lmtp,
            reset=reused,
            data=not self._probe or params.smtp_address_verify_target == "data",
        )
        failure: Failure | None = None
        # Its answer could be taken for one of LMTP's, of which there is one for each recipient.
        early_quit = not keep and offered.pipelining and not self._settings.lmtp
        try:
            await self._converse(session, transaction, b"QUIT\r\n" if early_quit else b"")
        except Lost as error:
            session.wire.close()
            if reused and transaction.phase is RSET:
                return  # the kept session had ended; that says nothing about the server
            failure = lost(session, error)
        except LocalTrouble:
            session.wire.close()  # perhaps within the content, where QUIT would be some more of it
            failure = local_trouble(session)
        except _Interrupted as error:
            session.wire.close()
            failure = said(session, error.reply, BODY)
            if error.reply.code < 400:  # to what, nobody knows; that is not the message's fault
                failure = replace(failure, dsn="4.5.0")
        if reused and transaction.confused:
            # A reply that came late, to something before this message; another session will know.
            session.wire.close()
            return
        if reused and transaction.probe is not None and not transaction.probe.positive:
            await session.quit(skip_response=True)
            return
        await self._settle(session, transaction, failure)
        if failure is None:
            await self._part(session, transaction, keys, keep=keep, quit_sent=early_quit)

    async def _converse(self, session: Session, transaction: Transaction, after: bytes) -> None:
        """Let the transaction take its course. Raises Lost, _Interrupted."""
        wire, queue_id = session.wire, self._request.queue_id
        awaited, content = Next.REPLY, Next.CONTENT  # found once: members of enums are slow to find
        while True:
            if commands := transaction.output():
                wire.send(commands)
            if transaction.next is awaited:
                transaction.receive(await session.reply(transaction.phase, queue_id))
                if transaction.confused and session.uses > 1:
                    return
            elif transaction.next is content and not self._probe:
                await self._send_content(session, transaction, after)
                transaction.content_sent()
            else:
                return

    async def _send_content(self, session: Session, transaction: Transaction, after: bytes) -> None:
        wire = session.wire
        if not transaction.wanted:
            wire.send(b".\r\n" + after)
            return
        if wire.pending:
            # What comes before the content cannot be the answer to it.
            early = await wire.received_reply()
            if early is not None:
                raise _Interrupted(early)
        content = await self._outgoing.content(self._left, session.extensions)
        try:
            await content.send(wire, after, pause=self._pause_before_dot(session))
            note_sent(wire, b".\r\n" + after)
            if content.broken:
                limit = self._settings.params.smtp_line_length_limit
                queue_id = self._request.queue_id
                LOG.info(f"{queue_id}: breaking line > {limit} bytes with <CR><LF>SPACE")
        except Lost as error:
            reply = await wire.received_reply()
            if reply is not None and not error.timed_out and reply.code >= 400:
                raise _Interrupted(reply) from None
            raise

    def _pause_before_dot(self, session: Session) -> float:
        if DELAY_DOT not in session.pix:
            return 0.0
        return self._settings.params.smtp_pix_workaround_delay_time

    async def _part(
        self,
        session: Session,
        transaction: Transaction,
        keys: tuple[str, ...],
        *,
        keep: bool,
        quit_sent: bool,
    ) -> None:
        """Keep the session for later if the server took the message, or say goodbye.

        quit_sent: with the end of data.
        """
        params = self._settings.params
        pipelining = session.extensions.pipelining
        keep = keep and not self._left  # else it would be the first that is tried again
        if transaction.next is Next.CONTENT:
            session.wire.close()  # a probe: there is no other way out of DATA without a message
            return
        if transaction.next is Next.RESET:
            keep, quit_sent = False, pipelining
            if not await session.reset(b"QUIT\r\n" if pipelining else b""):
                session.wire.close()
                return
        if quit_sent:
            if not params.smtp_skip_quit_response:
                await session.await_goodbye()
            session.wire.close()
        elif keep and session.wire.quiet and not transaction.closing:
            await self._tell_postmaster(session)
            self._around.cache.put(session, keys)
        else:
            await session.quit(skip_response=params.smtp_skip_quit_response)

    async def _settle(
        self, session: Session, transaction: Transaction, failure: Failure | None
    ) -> None:
        """Outcomes for the recipients that the transaction has decided about."""
        recipients = list(self._left)
        if transaction.mail is not None:
            await self._fail(recipients, said(session, transaction.mail, MAIL), session)
            return
        accepted: list[Recipient] = []
        undecided: list[Recipient] = []
        for recipient, reply in zip(recipients, transaction.rcpt, strict=True):
            if reply is None:
                undecided.append(recipient)
            elif reply.positive:
                accepted.append(recipient)
            else:
                await self._fail([recipient], said(session, reply, RCPT), session)
        if transaction.data is not None:
            await self._fail(accepted, said(session, transaction.data, DATA), session)
            return
        if self._probe and failure is None:
            await self._deliverable(session, transaction, accepted)
            return
        decided = await self._settle_final(session, transaction.final, accepted)
        undecided = accepted[decided:] + undecided
        if undecided:
            await self._fail(undecided, failure or _NO_REASON, session)

    async def _settle_final(
        self, session: Session, final: Sequence[ServerReply], accepted: Sequence[Recipient]
    ) -> int:
        """The replies to the end of data. Returns for how many recipients there was one."""
        if not final:
            return 0
        if not self._settings.lmtp:
            if final[0].positive:
                for recipient in accepted:
                    await self._sent(recipient, final[0], session)
            else:
                await self._fail(accepted, said(session, final[0], END_OF_DATA), session)
            return len(accepted)
        for recipient, reply in zip(accepted, final, strict=False):
            if reply.positive:
                await self._sent(recipient, reply, session)
            else:
                await self._fail([recipient], said(session, reply, END_OF_DATA), session)
        return len(final)

    # outcomes

    async def _sent(self, recipient: Recipient, reply: ServerReply, session: Session) -> None:
        final = self._settings.flags.final and not session.extensions.dsn
        if session.extensions.dsn and recipient.notify & _SUCCESS:
            # The server reports success itself, RFC 3461 §5.2.1.
            recipient = recipient._replace(notify=recipient.notify - _SUCCESS)
        await self._accepted(recipient, reply, session, "delivered" if final else "relayed")

    async def _deliverable(
        self, session: Session, transaction: Transaction, accepted: Sequence[Recipient]
    ) -> None:
        replies = [reply for reply in transaction.rcpt if reply is not None and reply.positive]
        for recipient, reply in zip(accepted, replies, strict=True):
            await self._accepted(recipient, reply, session, "deliverable")

    async def _accepted(
        self,
        recipient: Recipient,
        reply: ServerReply,
        session: Session,
        action: Literal["delivered", "relayed", "deliverable"],
    ) -> None:
        """The server has said yes."""
        outcome = Sent(
            dsn=reply.dsn,
            reason=reply.text,
            relay=session.relay,
            action=action,
            mta=session.host,
            diag_type="smtp",
            diag_text=reply.text,
            conn_use=session.uses,
            tls=self._tls,
        )
        await self._delivery.finish(recipient, outcome)
        self._drop(recipient)

    async def _fail(
        self, recipients: Iterable[Recipient], failure: Failure, session: Session
    ) -> None:
        """Defer or bounce, or leave the recipients to the next server."""
        recipients = list(recipients)
        if not recipients:
            return
        self._why = failure
        if failure.error_class is not None:
            blame(session.wire, failure.error_class)
        if not self._last and (failure.temporary or self._delivery.reporters.soft_bounce):
            LOG.info(f"{self._request.queue_id}: {failure.reason}")
            return
        if failure.site and failure.temporary:
            self._delivery.fail_destination(failure.dsn, failure.reason)
        await self._finish(recipients, failure, session.relay, session.uses)

    async def _finish(
        self, recipients: Sequence[Recipient], failure: Failure, relay: str, uses: int
    ) -> None:
        outcome = failure.outcome(relay, uses, self._tls)
        for recipient in recipients:
            await self._delivery.finish(recipient, outcome)
            self._drop(recipient)

    def _drop(self, recipient: Recipient) -> None:
        self._left = [one for one in self._left if one.offset != recipient.offset]

    async def _give_up(self) -> None:
        """No server is left."""
        params = self._settings.params
        failure = self._why or _NO_REASON
        if not failure.temporary and not self._settings.lmtp:
            relay = params.relayhost
            culprit = ""
            if params.smtp_fallback_relay:
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
        await self._finish(self._left, failure, "none", 0)

    async def _pass_on(self, spec: str) -> None:
        """best_mx_transport: another agent delivers, and reports."""
        delivery, timeout = self._delivery, self._settings.params.ipc_timeout
        for recipient in tuple(self._left):
            try:
                final = await hand_over(delivery, recipient, self._request.sender, spec, timeout)
            except ServiceUnavailable as error:
                LOG.warning(f"{self._request.queue_id}: {error}")
                await self._finish([recipient], _NO_TRANSPORT, "none", 0)
            else:
                delivery.close(recipient, final=final)
        self._left.clear()


class _Interrupted(Exception):
    """The server replied before it had the content, or it hung up before it had all of it."""

    def __init__(self, reply: ServerReply) -> None:
        super().__init__(reply.text)
        self.reply = reply
