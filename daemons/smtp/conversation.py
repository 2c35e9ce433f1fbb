"""The delivery of one message in one session: greeting, one transaction, and the end.

Outcomes go into the ledger; recipients that have none afterwards are left to another server. With
pipelining, QUIT is sent together with the end of data, except in LMTP, where its reply could be
taken for that of a recipient. A cached session begins with RSET: if that fails, or replies do not
match commands, the session was stale. That says nothing about the message or the server, so the
next session is tried.
"""

import time
from dataclasses import replace
from typing import Final, NamedTuple

from daemons.smtp.failure import (
    Failure,
    HandshakeFailed,
    LocalTrouble,
    SiteFailed,
    TlsRequirementFailed,
    early_reply,
    local_trouble,
    lost,
    said,
)
from daemons.smtp.ledger import Ledger
from daemons.smtp.logins import LoginQuery
from daemons.smtp.outgoing import Outgoing
from daemons.smtp.pix import DELAY_DOT
from daemons.smtp.recording import Notices, note_sent
from daemons.smtp.requiretls import Verdict
from daemons.smtp.route import Route
from daemons.smtp.session import Session
from daemons.smtp.shared import SmtpClient
from daemons.smtp.tls_policy import ServerTlsPolicy
from daemons.smtp.tls_start import TlsStart
from libmail.agents.delivery import Delivery
from libmail.log import LOG
from libmail.lookup.context import LookupFailure
from libmail.net.wire import Lost
from libmail.smtp.client import (
    BODY,
    END_OF_DATA,
    OPTIONAL,
    RSET,
    Extensions,
    Next,
    ServerReply,
    Transaction,
)
from libmail.smtp.client_commands import UnsafeAddress
from libmail.tables.table import TableRetry
from libmail.tls.levels import Level

__all__ = ["Conversation", "Mail"]

_REPLY: Final = Next.REPLY  # members of enums are slow to find
_CONTENT: Final = Next.CONTENT
_RESET: Final = Next.RESET


class Mail(NamedTuple):
    """One request: the message, and the outcomes of its recipients."""

    delivery: Delivery
    outgoing: Outgoing
    ledger: Ledger


class _Interrupted(Exception):
    """The server replied before it had the content, or it hung up before it had all of it."""

    def __init__(self, reply: ServerReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Conversation:
    """One message in one session.

    retry_without_tls: TLS was optional and may have been the problem; the server is to be tried
    once more without it.
    """

    retry_without_tls = False

    def __init__(
        self,
        client: SmtpClient,
        mail: Mail,
        session: Session,
        tls: ServerTlsPolicy,
        route: Route,
    ) -> None:
        """tls: the policy for the server. route: what the session belongs to."""
        self._client = client
        self._params = client.settings.params
        self._mail = mail
        self._ledger = mail.ledger
        self._request = mail.delivery.request
        self._session = session
        self._tls = tls
        self._route = route
        self._probe = mail.delivery.verify_only

    async def begin(self, *, loop_detect: bool) -> None:
        """Begin a new session and deliver the message. loop_detect: it may be this system."""
        client, session, ledger = self._client, self._session, self._ledger
        try:
            await self._introduce(loop_detect=loop_detect)
        except (LookupFailure, TableRetry):
            session.wire.close()
            failure = Failure("4.3.0", "table lookup error", error_class="data")
            await ledger.fail(ledger.left, failure, session)
        except HandshakeFailed:
            session.wire.close()
            await self._handshake_failed()
        except Lost as error:
            session.wire.close()
            self._reconsider(error)
            await ledger.fail(ledger.left, lost(session, error), session)
        except SiteFailed as error:
            failure = error.failure
            if isinstance(error, TlsRequirementFailed):
                ledger.set_failed_tls()
                verdict = self._route.demand.without(error.lacks)
                ledger.set_requiretls(verdict)
                failure = verdict.obstacle(session.name) or failure
            await session.quit(skip_response=self._params.smtp_skip_quit_response)
            await ledger.fail(ledger.left, failure, session)
        except LocalTrouble:
            session.leave()
            await ledger.fail(ledger.left, local_trouble(session), session)
        else:
            await self._transact()
        if client.notices is not None:
            await self._tell_postmaster(client.notices)

    async def _introduce(self, *, loop_detect: bool) -> None:
        """Greeting, EHLO, TLS, login. Raises what `begin` handles."""
        client, session = self._client, self._session
        discard = await client.discarded(session.address)

        def extensions(reply: ServerReply) -> Extensions:
            return client.extensions(reply, discard)

        start = TlsStart(
            client.settings,
            client.engine,
            self._tls,
            session,
            client.reporter,
            insist=self._route.demand.encrypts,
        )
        wrapped = client.settings.wraps(self._tls.policy.level)
        if wrapped:
            await start.at_once()
        await session.greet(
            client.settings,
            extensions,
            self._mail.delivery,
            client.decisions.pix,
            loop_detect=loop_detect,
        )
        if wrapped:
            start.keep_session()
        else:
            await start.after_greeting(extensions)
        if (
            self._params.smtp_tls_block_early_mail_reply
            and session.secured
            and session.wire.pending
        ):
            raise SiteFailed(early_reply(session))
        if client.decisions.logins is not None:
            request = self._request
            await client.decisions.logins.log_in(
                session, LoginQuery(request.queue_id, request.sender, self._route.name)
            )

    async def _handshake_failed(self) -> None:
        """Without TLS, if that is optional and the message has waited already; else it failed."""
        if self._may_retry_without_tls:
            self.retry_without_tls = True
            return
        required = self._tls.policy.level is not Level.MAY
        failure = Failure("4.7.5", "Cannot start TLS: handshake failure", site=required)
        await self._ledger.fail(self._ledger.left, failure, self._session)

    def _reconsider(self, error: Lost) -> None:
        """Decide whether to retry without TLS after the session was lost.

        Not at the end of data: the server may have the message.
        """
        if self._session.secured and error.phase is not END_OF_DATA and self._may_retry_without_tls:
            self.retry_without_tls = True
            self._ledger.last = False

    @property
    def _may_retry_without_tls(self) -> bool:
        delivery = self._mail.delivery
        waited = delivery.received - delivery.arrival >= self._params.minimal_backoff_time
        return self._tls.policy.level is Level.MAY and waited and not self._route.demand.encrypts

    async def resume(self) -> None:
        """Deliver the message in a cached session."""
        await self._transact()
        if self._client.notices is not None:
            await self._tell_postmaster(self._client.notices)

    async def _tell_postmaster(self, notices: Notices) -> None:
        """Report problems of the session, if notify_classes wants that; each of them once."""
        await notices.about(self._session.wire, self._session.relay, self._request.sender)

    # one transaction

    async def _transact(self) -> None:
        client, session, ledger = self._client, self._session, self._ledger
        policy, route = self._tls.policy, self._route
        ledger.set_actual_tls(policy.level.label if session.secured else "none")
        self._mail.delivery.connected = time.time()
        session.uses += 1
        transaction = self._plan(route.demand.judge(session, policy.level))
        if isinstance(transaction, Failure):
            await session.quit(skip_response=self._params.smtp_skip_quit_response)
            await ledger.fail(ledger.left, transaction, session)
            return
        # The TLS session, if any, may be one that serves no other message.
        keep = route.keep and (policy.reuse or not session.secured) and client.cache.fit(session)
        early_quit = not (keep or client.settings.lmtp) and session.extensions.pipelining
        failure = await self._attempt(transaction, b"QUIT\r\n" if early_quit else b"")
        if session.uses > 1 and self._is_stale(transaction, failure):
            return
        await ledger.settle(session, transaction, failure)
        if failure is None:
            await self._end_session(transaction, keep=keep, quit_sent=early_quit)

    def _plan(self, verdict: Verdict) -> Transaction | Failure:
        """The transaction; or why this server cannot take the message."""
        session, ledger, outgoing = self._session, self._ledger, self._mail.outgoing
        offered = session.extensions
        try:
            obstacle = verdict.obstacle(session.name) or outgoing.obstacle(session, offered)
            mail = outgoing.mail(offered, logged_in=session.logged_in, requiretls=verdict.passes)
            rcpts = outgoing.rcpts(ledger.left, offered)
        except UnsafeAddress:
            obstacle = Failure("5.1.3", "bad address syntax")
            mail, rcpts = b"", []
        ledger.set_requiretls(verdict)
        if obstacle is not None:
            if obstacle.elsewhere and not verdict.lacks:
                ledger.set_actual_tls(None)
            return obstacle
        return Transaction(
            mail,
            rcpts,
            pipelining=offered.pipelining,
            lmtp=self._client.settings.lmtp,
            reset=session.uses > 1,
            before=outgoing.source(offered),
            data=not self._probe or self._params.smtp_address_verify_target == "data",
        )

    async def _attempt(self, transaction: Transaction, after: bytes) -> Failure | None:
        """Carry out the transaction. Returns why it broke off, or None. after: sent with the end of
        data."""
        session = self._session
        try:
            await self._converse(transaction, after)
        except Lost as error:
            session.wire.close()
            self._reconsider(error)
            return lost(session, error)
        except LocalTrouble:
            session.wire.close()  # perhaps within the content, where QUIT would be some more of it
            return local_trouble(session)
        except _Interrupted as error:
            session.wire.close()
            failure = said(session, error.reply, BODY)
            # It is unknown what this is a reply to; that is not the fault of the message.
            return replace(failure, dsn="4.5.0") if error.reply.code < 400 else failure
        return None

    async def _converse(self, transaction: Transaction, after: bytes) -> None:
        """Raises Lost, LocalTrouble, _Interrupted."""
        session, wire, queue_id = self._session, self._session.wire, self._request.queue_id
        while True:
            if transaction.unsent and (commands := transaction.output()):
                wire.send(commands)
            if transaction.next is _REPLY:
                hoped = transaction.hoped
                if hoped and (replies := await wire.group(transaction.phase, hoped)):
                    transaction.receive_hoped(replies)
                    continue
                phase = transaction.phase
                reply = await session.reply(phase, queue_id)
                transaction.receive(reply)
                if not 200 <= reply.code < 300 and phase in OPTIONAL:
                    said_so = f"host {session.relay} said: {reply.text}"
                    LOG.warning(f"{said_so} (in reply to {phase.command})")
            elif transaction.next is _CONTENT and not self._probe:
                await self._send_content(transaction, after)
                transaction.content_sent()
            else:
                return

    async def _send_content(self, transaction: Transaction, after: bytes) -> None:
        session, wire = self._session, self._session.wire
        if not transaction.wanted:
            wire.send(b".\r\n" + after)
            return
        if wire.pending:
            # What arrives before the content was sent cannot be the reply to it.
            early = await wire.received_reply()
            if early is not None:
                raise _Interrupted(early)
        content = None if session.pix else self._mail.outgoing.as_queued(session.extensions)
        try:
            if content is not None:
                broken = False
                await wire.send_all(content + after, BODY)
            else:
                broken = await self._send_edited(after)
            note_sent(wire, b".\r\n" + after)
            if broken:
                limit, queue_id = self._params.smtp_line_length_limit, self._request.queue_id
                LOG.info(f"{queue_id}: breaking line > {limit} bytes with <CR><LF>SPACE")
        except Lost as error:
            reply = await wire.received_reply()
            if reply is not None and not error.timed_out and reply.code >= 400:
                raise _Interrupted(reply) from None
            raise

    async def _send_edited(self, after: bytes) -> bool:
        """Send content that is large, or may have to be changed. Returns whether lines were
        broken."""
        session, params = self._session, self._params
        content = await self._mail.outgoing.content(self._ledger.left, session.extensions)
        pause = params.smtp_pix_workaround_delay_time if DELAY_DOT in session.pix else 0.0
        await content.send(session.wire, after, pause=pause)
        return content.broken

    def _is_stale(self, transaction: Transaction, failure: Failure | None) -> bool:
        """Whether a cached session turned out to be unusable, whatever the server is like."""
        session, probe = self._session, transaction.probe
        if transaction.confused:  # a reply that came late, to something before this message
            session.wire.close()
            return True
        if probe is None:  # it had ended
            return failure is not None and transaction.phase is RSET
        if not probe.positive:
            session.leave()
            return True
        return False

    async def _end_session(self, transaction: Transaction, *, keep: bool, quit_sent: bool) -> None:
        """Cache the session, or end it with QUIT. quit_sent: QUIT was sent with the end of data."""
        session = self._session
        pipelining = session.extensions.pipelining
        keep = keep and not self._ledger.left  # else it would be the first that is tried again
        if transaction.next is _CONTENT:
            session.wire.close()  # a probe: there is no other way out of DATA without a message
            return
        if transaction.next is _RESET:
            keep, quit_sent = False, pipelining
            if not await session.reset(b"QUIT\r\n" if pipelining else b""):
                session.wire.close()
                return
        if quit_sent:
            if not self._params.smtp_skip_quit_response:
                await session.await_goodbye()
            session.wire.close()
        elif keep and session.wire.quiet and not transaction.closing:
            if self._client.notices is not None:
                await self._tell_postmaster(self._client.notices)
            keys = session.keys or self._route.keys(session, self._tls)
            self._client.cache.put(session, keys)
        else:
            await session.quit(skip_response=self._params.smtp_skip_quit_response)
