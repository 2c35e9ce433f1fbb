"""The outcomes of one request: which recipients have none yet, and the last reason why.

After a failure that another server may not share, the recipients are left to the next server. The
failure is remembered: it becomes their outcome if there is no next server.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from daemons.smtp.events import ServerFailed
from daemons.smtp.failure import Failure, said
from daemons.smtp.recording import blame
from daemons.smtp.requiretls import Verdict
from daemons.smtp.session import Session
from daemons.smtp.settings import Settings
from libmail.agents.delivery import Delivery, Sent
from libmail.ipc.messages import DsnNotify, Recipient
from libmail.log import LOG
from libmail.smtp.client import DATA, END_OF_DATA, MAIL, RCPT, ServerReply, Transaction

__all__ = ["NO_REASON", "Ledger"]

NO_REASON: Final = Failure("4.3.0", "server unavailable or unable to receive mail")
_SUCCESS: Final = int(DsnNotify.SUCCESS)


class Ledger:
    """The ledger of one request.

    left: recipients without an outcome. why: the last failure. last: no other server will be tried.
    The status of smtp_log_tls_feature_status: `set_wanted_tls`, then `set_actual_tls` or
    `set_failed_tls` for each server, and `set_requiretls`.
    """

    def __init__(self, delivery: Delivery, settings: Settings) -> None:
        self._delivery = delivery
        self._settings = settings
        self._level = "none"
        self._tls = self._actual = ""
        self.requires_tls = False  # REQUIRETLS counts at this destination
        self.left = list(delivery.request.recipients)
        self.why: Failure | None = None
        self.last = False

    def set_wanted_tls(self, level: str) -> None:
        """The TLS level of the policy, before a server is contacted."""
        self._level, self._tls = level, ""

    def set_actual_tls(self, actual: str | None) -> None:
        """The TLS level of the session; None while a connection is being made."""
        if actual is None:
            self._note_tls(f"{self._level}?")
        else:
            self._note_tls(self._level if actual == self._level else f"{self._level}:{actual}")

    def set_failed_tls(self) -> None:
        """The required TLS level was not reached."""
        self._note_tls(f"!{self._level}")

    def set_requiretls(self, verdict: Verdict) -> None:
        """What becomes of REQUIRETLS with a server."""
        if verdict.lacks:
            self._note_tls(self._level)
        if verdict.status and self._tls:
            self._tls = f"{self._actual}/{verdict.status}"

    def _note_tls(self, status: str) -> None:
        if self._settings.params.smtp_log_tls_feature_status:
            self._actual = status
            self._tls = f"{status}/requiretls?" if self.requires_tls else status

    # of a transaction

    async def settle(
        self, session: Session, transaction: Transaction, failure: Failure | None
    ) -> None:
        """Record the outcomes of the recipients that the transaction has decided.

        failure: why the transaction broke off, for the others.
        """
        recipients = list(self.left)
        if transaction.mail is not None:
            await self.fail(recipients, said(session, transaction.mail, MAIL), session)
            return
        accepted: list[Recipient] = []
        undecided: list[Recipient] = []
        for recipient, reply in zip(recipients, transaction.rcpt, strict=True):
            if reply is None:
                undecided.append(recipient)
            elif reply.positive:
                accepted.append(recipient)
            else:
                await self.fail([recipient], said(session, reply, RCPT), session)
        if transaction.data is not None:
            await self.fail(accepted, said(session, transaction.data, DATA), session)
            return
        if self._delivery.verify_only and failure is None:
            await self._deliverable(session, transaction, accepted)
            return
        decided = await self._settle_final(session, transaction.final, accepted)
        undecided = accepted[decided:] + undecided
        if undecided:
            await self.fail(undecided, failure or NO_REASON, session)

    async def _settle_final(
        self, session: Session, final: Sequence[ServerReply], accepted: Sequence[Recipient]
    ) -> int:
        """Record the replies to the end of data. Returns how many recipients they decided."""
        if not final:
            return 0
        if not self._settings.lmtp:
            if final[0].positive:
                await self._sent(accepted, final[0], session)
            else:
                await self.fail(accepted, said(session, final[0], END_OF_DATA), session)
            return len(accepted)
        for recipient, reply in zip(accepted, final, strict=False):
            if reply.positive:
                await self._sent([recipient], reply, session)
            else:
                await self.fail([recipient], said(session, reply, END_OF_DATA), session)
        return len(final)

    async def _deliverable(
        self, session: Session, transaction: Transaction, accepted: Sequence[Recipient]
    ) -> None:
        replies = [reply for reply in transaction.rcpt if reply is not None and reply.positive]
        for recipient, reply in zip(accepted, replies, strict=True):
            outcome = self._success(reply, session, "deliverable")
            await self._delivery.finish(recipient, outcome)
            self.drop(recipient)

    async def _sent(
        self, recipients: Sequence[Recipient], reply: ServerReply, session: Session
    ) -> None:
        """The server accepted the message for these."""
        dsn = session.extensions.dsn
        final = self._settings.flags.final and not dsn
        outcome = self._success(reply, session, "delivered" if final else "relayed")
        for recipient in recipients:
            if dsn and recipient.notify & _SUCCESS:
                # The server reports success itself, RFC 3461 §5.2.1.
                recipient = recipient._replace(notify=recipient.notify - _SUCCESS)
            await self._delivery.finish(recipient, outcome)
            self.drop(recipient)

    def _success(
        self,
        reply: ServerReply,
        session: Session,
        action: Literal["delivered", "relayed", "deliverable"],
    ) -> Sent:
        """The outcome of a recipient that the server accepted, or the message for it."""
        text = reply.text
        return Sent(
            dsn=reply.dsn,
            reason=text,
            relay=session.relay,
            action=action,
            mta=session.host,
            diag_type="smtp",
            diag_text=text,
            conn_use=session.uses,
            tls=self._tls,
        )

    # of a server, or of none

    def blame(self, failure: Failure) -> None:
        """Remember the reason for the case that no server takes the message.

        What is final where another server may do better is not the last word while there is one
        that could only not be asked: a temporary problem is no reason to return mail.
        """
        open_elsewhere = failure.elsewhere and not failure.temporary
        if not (open_elsewhere and self.why is not None and self.why.temporary):
            self.why = failure

    async def fail(
        self, recipients: Iterable[Recipient], failure: Failure, session: Session
    ) -> None:
        """Defer or bounce recipients, or leave them to the next server."""
        recipients = list(recipients)
        if not recipients:
            return
        self.blame(failure)
        if failure.error_class is not None:
            blame(session.wire, failure.error_class)
        elsewhere = failure.temporary or failure.elsewhere
        if not self.last and (elsewhere or self._delivery.services.soft_bounce):
            LOG.event(ServerFailed(self._delivery.request.queue_id, failure.reason))
            return
        relay, uses = session.relay, session.uses
        if self.why is not None and self.why is not failure:
            failure, relay, uses = self.why, "none", 0
        if failure.site and failure.temporary:
            self._delivery.fail_destination(failure.dsn, failure.reason)
        await self.finish(recipients, failure, relay=relay, uses=uses)

    async def finish(
        self, recipients: Iterable[Recipient], failure: Failure, *, relay: str, uses: int = 0
    ) -> None:
        """Defer or bounce recipients. relay: the server, or "none"."""
        outcome = failure.outcome(relay, uses, self._tls)
        for recipient in list(recipients):
            await self._delivery.finish(recipient, outcome)
            self.drop(recipient)

    def drop(self, recipient: Recipient) -> None:
        """Remove a recipient that has an outcome."""
        self.left = [one for one in self.left if one.offset != recipient.offset]
