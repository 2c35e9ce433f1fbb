"""What all delivery agents share: requests in, one outcome a recipient out.

An agent is a function that is given a `Delivery` and calls `finish` once for each recipient. That
writes the log line, tells bounce(8), defer(8) or trace(8), and marks the recipient done in the
queue file, in the order that docs/queue.md demands: the record for a report is on disk before the
recipient is marked. What an agent forgets, or was about to do when it failed, is deferred.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from libmail.agents.status_filter import StatusFilter
from libmail.ipc.messages import (
    AddressStatus,
    AgentReady,
    BounceAppend,
    BounceFlush,
    BounceReply,
    DeliverReply,
    DeliverRequest,
    DsnNotify,
    Envelope,
    Recipient,
    Target,
    TraceFlag,
    VerifyReply,
    VerifyUpdate,
)
from libmail.log import LOG
from libmail.log.events import DeliveryStatus
from libmail.queue.file import QueueFile, QueueFileCorrupt
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServiceClient, ServicePool, ServiceUnavailable
from libmail.service.skeleton import Handlers, Runtime
from libmail.smtp.reply import reply_text

__all__ = [
    "Bounced",
    "Deferred",
    "Delivery",
    "DeliveryParams",
    "DeliveryServices",
    "Outcome",
    "Sent",
    "delivery_handlers",
]


# Plain numbers: each operator of enum flags costs about as much as decoding a recipient.
_SUCCESS: Final = int(DsnNotify.SUCCESS)
_DELAY: Final = int(DsnNotify.DELAY)
_CLEARED: Final = int(TraceFlag.DELAY_CLEARED)
_RECORD: Final = int(TraceFlag.RECORD)
_NO_RESULT: Final = "delivery agent gave no result"
_USUAL_TEXT: Final = 4096  # characters of words that need no look at their length
_PROBE: Final = int(TraceFlag.MTA_VERIFY)
_VERIFY: Final = int(TraceFlag.USER_VERIFY | TraceFlag.MTA_VERIFY)


class Sent(NamedTuple):
    """Delivered, or handed over.

    dsn: RFC 3463 code. reason: in parentheses in the log. relay: "host[addr]:port", "local",
    "none". action: what a report calls it. mta: remote MTA's name. diag_type/diag_text: "smtp" and
    its reply, or "". tls: see `DeliveryStatus`.
    """

    dsn: str
    reason: str
    relay: str
    action: Literal["delivered", "relayed", "expanded", "deliverable"] = "relayed"
    mta: str = ""
    diag_type: str = ""
    diag_text: str = ""
    conn_use: int = 0
    tls: str = ""


class Deferred(NamedTuple):
    """To be tried again; fields as in `Sent`, dsn 4.x.x."""

    dsn: str
    reason: str
    relay: str
    mta: str = ""
    diag_type: str = ""
    diag_text: str = ""
    conn_use: int = 0
    tls: str = ""


class Bounced(NamedTuple):
    """Failed for good; fields as in `Sent`, dsn 5.x.x."""

    dsn: str
    reason: str
    relay: str
    mta: str = ""
    diag_type: str = ""
    diag_text: str = ""
    conn_use: int = 0
    tls: str = ""


Outcome: TypeAlias = Sent | Deferred | Bounced


@dataclass(frozen=True, slots=True)
class DeliveryParams:
    """What the shared part of delivery agents reads."""

    soft_bounce: bool
    bounce_service_name: str
    defer_service_name: str
    trace_service_name: str
    ipc_timeout: float
    address_verify_service_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryServices:
    """What all deliveries of an agent share: bounce, defer, trace and verify.

    The first three record outcomes for reports to the sender; verify gets the outcome of address
    probes, and of nothing else.
    """

    soft_bounce: bool = False
    status_filter: StatusFilter | None = None
    bounce: ServiceClient
    defer: ServiceClient
    trace: ServiceClient
    verify: ServiceClient

    @classmethod
    def of(
        cls, params: DeliveryParams, status_filter: StatusFilter | None = None
    ) -> "DeliveryServices":
        """The services that the parameters name."""

        def pool(name: str) -> ServicePool:
            return ServicePool(f"private/{name}", timeout=params.ipc_timeout)

        return cls(
            soft_bounce=params.soft_bounce,
            status_filter=status_filter or None,
            bounce=pool(params.bounce_service_name),
            defer=pool(params.defer_service_name),
            trace=pool(params.trace_service_name),
            verify=pool(params.address_verify_service_name),
        )


class Delivery:
    """The delivery of one request.

    arrival: when the message began to arrive. received: when the agent got the request (time.time).
    connected: when it had a connection, set by the agent for the delays in the log; 0: at once.
    verify_only: find out whether the mail could be delivered, without delivering it (sendmail -bv,
    address probes). probe: it is an address probe. destination_dsn/_reason: set if the destination
    failed as a whole. deferred: some recipient is to be tried again.
    """

    connected = 0.0
    destination_dsn = ""
    destination_reason = ""
    deferred = False

    def __init__(
        self, request: DeliverRequest, file: QueueFile, services: DeliveryServices, received: float
    ) -> None:
        self.request: Final = request
        self.file: Final = file
        self.services: Final = services
        self.arrival: Final = file.preamble.arrival
        self.received: Final = received
        self.verify_only: Final = request.flags & _VERIFY != 0
        self.probe: Final = request.flags & _PROBE != 0
        self._open = {recipient.offset: recipient for recipient in request.recipients}

    @property
    def envelope(self) -> Envelope:
        """All that the queue file says of the message. Raises QueueFileCorrupt."""
        return self.file.envelope()

    @property
    def unfinished(self) -> list[Recipient]:
        """Recipients without an outcome yet."""
        return list(self._open.values())

    def fail_destination(self, dsn: str, reason: str) -> None:
        """The destination as a whole failed: qmgr is to hold back other mail for it."""
        self.destination_dsn, self.destination_reason = dsn, reply_text(reason)

    async def finish_all(self, recipients: Iterable[Recipient], outcome: Outcome) -> None:
        """The same outcome for several recipients."""
        for recipient in recipients:
            await self.finish(recipient, outcome)

    async def finish(self, recipient: Recipient, outcome: Outcome) -> None:
        """Set the outcome of a recipient: log, report, done mark. To be called once for each."""
        self.close(recipient, final=await self.report(recipient, outcome))

    def close(self, recipient: Recipient, *, final: bool) -> None:
        """Close a recipient whose outcome was reported. final: it is not to be tried again."""
        if not final:
            self.deferred = True
        elif recipient.offset:  # without a record of its own, the agent that passed it on marks it
            self._mark_done(recipient)
        self._open.pop(recipient.offset, None)

    def _mark_done(self, recipient: Recipient) -> None:
        """Mark a recipient as done. If that fails it is tried again: a duplicate is better than a
        loss."""
        try:
            self.file.mark_done(recipient)
        except (OSError, QueueFileCorrupt) as err:
            LOG.warning(f"{self.request.queue_id}: update queue file: {err}")
            self.deferred = True

    async def report(
        self, recipient: Recipient, outcome: Outcome, *, return_to: str | None = None
    ) -> bool:
        """Log the outcome of an address, and record it for a report to the sender.

        Applies the delivery status filter and soft_bounce first. recipient: one of the request, or
        an address that one of them was expanded to (aliases). return_to: who gets a report of
        failure at once, in place of the sender (owner of an alias). Returns whether the outcome is
        final, which it is not if it could not be recorded.
        """
        outcome = _plain(outcome)
        if self.services.status_filter is not None:
            outcome = await _filtered(outcome, self.services.status_filter)
        softened = False
        if isinstance(outcome, Bounced) and self.services.soft_bounce:
            outcome, softened = _soften(outcome), True
        if self.verify_only:
            return await self._report_verify(recipient, outcome)
        if isinstance(outcome, Sent):
            return await self._report_sent(recipient, outcome)
        if isinstance(outcome, Bounced):
            if return_to is not None:
                return await self._return_one(recipient, outcome, return_to)
            return await self._report_bounced(recipient, outcome)
        return await self._report_deferred(
            recipient, outcome, "SOFTBOUNCE" if softened else "deferred"
        )

    async def record_expansion(self, recipient: Recipient, outcome: Sent) -> None:
        """Record the expansion of a recipient for the success report; nothing is logged."""
        if not await self._record(self.services.trace, recipient, outcome, outcome.action):
            LOG.warning(f"{self.request.queue_id}: cannot record expansion for the report")

    async def _return_one(self, recipient: Recipient, outcome: Bounced, return_to: str) -> bool:
        """Report a failure to someone other than the sender."""
        request = self.request
        report = BounceFlush(
            kind="one",
            queue_name="active",
            queue_id=request.queue_id,
            sender=return_to,
            envelope_flags=request.envelope_flags,
            dsn_envid=request.dsn_envid,
            verp_delims="",
            targets=(_target(recipient, outcome, "failed"),),
        )
        try:
            reply = await self.services.bounce.call(report, BounceReply)
        except ServiceUnavailable as err:
            LOG.warning(f"{request.queue_id}: {err}")
            reply = BounceReply(-1, "")
        if reply.status:
            text = f"{outcome.reason} (bounce service unavailable)"
            retry = Deferred(dsn="4.3.0", reason=text, relay=outcome.relay)
            return await self._report_deferred(recipient, retry)
        self._log(recipient, outcome, "bounced")
        return True

    async def _report_sent(self, recipient: Recipient, outcome: Sent) -> bool:
        flags, notify = self.request.flags, recipient.notify
        if flags & _CLEARED and (not notify or notify & _DELAY):
            recipient = recipient._replace(notify=notify | _SUCCESS)
        wanted = recipient.notify & _SUCCESS or flags & _RECORD
        if wanted and not await self._record(
            self.services.trace, recipient, outcome, outcome.action
        ):
            LOG.warning(f"{self.request.queue_id}: cannot record delivery for the report")
        self._log(recipient, outcome, "sent")
        return True

    async def _report_bounced(self, recipient: Recipient, outcome: Bounced) -> bool:
        # Also where the sender wants no report: the postmaster may.
        if not await self._record(self.services.bounce, recipient, outcome, "failed"):
            text = f"{outcome.reason} (bounce service unavailable)"
            retry = Deferred(dsn="4.3.0", reason=text, relay=outcome.relay)
            return await self._report_deferred(recipient, retry)
        if self.request.flags & _RECORD:
            await self._record(self.services.trace, recipient, outcome, "failed")
        self._log(recipient, outcome, "bounced")
        return True

    async def _report_deferred(
        self,
        recipient: Recipient,
        outcome: Deferred,
        status: Literal["deferred", "SOFTBOUNCE"] = "deferred",
    ) -> bool:
        if not await self._record(self.services.defer, recipient, outcome, "delayed"):
            LOG.warning(f"{self.request.queue_id}: cannot record why delivery is delayed")
        if self.request.flags & _RECORD:
            await self._record(self.services.trace, recipient, outcome, "delayed")
        self._log(recipient, outcome, status)
        return False

    async def _report_verify(self, recipient: Recipient, outcome: Outcome) -> bool:
        word: Literal["deliverable", "undeliverable"] = (
            "deliverable" if isinstance(outcome, Sent) else "undeliverable"
        )
        if self.probe:
            await self._answer_probe(recipient, outcome)
        elif not await self._record(self.services.trace, recipient, outcome, word):
            retry = Deferred(dsn="4.3.0", reason="trace service unavailable", relay=outcome.relay)
            return await self._report_deferred(recipient, retry)
        self._log(recipient, outcome, word)
        return True

    async def _answer_probe(self, recipient: Recipient, outcome: Outcome) -> None:
        """Tell verify(8). A probe is not tried again, whatever becomes of that."""
        status = AddressStatus.OK
        if not isinstance(outcome, Sent):
            failed = isinstance(outcome, Bounced)
            status = AddressStatus.BOUNCE if failed else AddressStatus.DEFER
        address = recipient.orig_rcpt or recipient.address
        update = VerifyUpdate(address, int(status), outcome.reason)
        try:
            await self.services.verify.call(update, VerifyReply)
        except ServiceUnavailable as err:
            LOG.warning(f"{self.request.queue_id}: {err}")

    async def _record(
        self, pool: ServiceClient, recipient: Recipient, outcome: Outcome, action: str
    ) -> bool:
        target = _target(recipient, outcome, action)
        try:
            reply = await pool.call(BounceAppend(self.request.queue_id, (target,)), BounceReply)
        except ServiceUnavailable as err:
            LOG.warning(f"{self.request.queue_id}: {err}")
            return False
        return reply.status == 0

    def _log(
        self,
        recipient: Recipient,
        outcome: Outcome,
        status: Literal[
            "sent", "deferred", "SOFTBOUNCE", "bounced", "deliverable", "undeliverable"
        ],
    ) -> None:
        request, arrival, now = self.request, self.arrival, time.time()
        connected = self.connected or self.received
        same = recipient.orig_rcpt == recipient.address
        LOG.event(
            DeliveryStatus(
                queue_id=request.queue_id,
                recipient=recipient.address,
                orig_rcpt="" if same else recipient.orig_rcpt,
                relay=outcome.relay,
                conn_use=outcome.conn_use,
                delay=now - arrival,
                delays=(
                    request.queued - arrival,
                    self.received - request.queued,
                    connected - self.received,
                    now - connected,
                ),
                dsn=outcome.dsn,
                status=status,
                reason=outcome.reason,
                tls=outcome.tls,
            )
        )

    def reply(self) -> DeliverReply:
        """What to tell qmgr."""
        return DeliverReply(self.deferred, self.destination_dsn, self.destination_reason)


def _target(recipient: Recipient, outcome: Outcome, action: str) -> Target:
    return Target(
        address=recipient.address,
        orig_rcpt=recipient.orig_rcpt,
        dsn_orcpt=recipient.dsn_orcpt,
        notify=recipient.notify,
        offset=recipient.offset,
        action=action,
        status=outcome.dsn,
        reason=outcome.reason,
        mta=outcome.mta,
        diag_type=outcome.diag_type,
        diag_text=outcome.diag_text,
        relay=outcome.relay,
        time=time.time(),
    )


def _plain(outcome: Outcome) -> Outcome:
    """The outcome in words that can go into every record: most come from somebody else."""
    if f"{outcome.reason}{outcome.relay}{outcome.mta}{outcome.diag_text}".isprintable() and (
        len(outcome.reason) + len(outcome.diag_text) < _USUAL_TEXT
    ):
        return outcome
    return outcome._replace(
        reason=reply_text(outcome.reason),
        relay=reply_text(outcome.relay),
        mta=reply_text(outcome.mta),
        diag_text=reply_text(outcome.diag_text),
    )


def _soften(outcome: Bounced) -> Deferred:
    """soft_bounce: permanent failures are temporary."""
    return Deferred(
        dsn=f"4{outcome.dsn[1:]}",
        reason=outcome.reason,
        relay=outcome.relay,
        mta=outcome.mta,
        diag_type=outcome.diag_type,
        diag_text=outcome.diag_text,
        conn_use=outcome.conn_use,
        tls=outcome.tls,
    )


async def _filtered(outcome: Outcome, status_filter: StatusFilter) -> Outcome:
    """Only code and text change, and with the code whether a failure is final."""
    dsn, reason = await status_filter.replace(outcome.dsn, outcome.reason)
    if isinstance(outcome, Sent):
        return outcome._replace(dsn=dsn, reason=reason)
    kind = Bounced if dsn.startswith("5") else Deferred
    return kind(*outcome)._replace(dsn=dsn, reason=reason)


Agent = Callable[[Delivery], Awaitable[None]]


async def _deliver(
    agent: Agent, services: DeliveryServices, request: DeliverRequest, fd: int
) -> DeliverReply:
    """Run the agent; whatever it leaves without an outcome is deferred.

    fd: the queue file, which is closed; its lock tells a restarted qmgr(8) of the delivery.
    """
    try:
        file = QueueFile(request.queue_id, fd=fd)
    except (OSError, QueueFileCorrupt) as err:
        LOG.warning(f"{request.queue_id}: read queue file: {err}")
        return DeliverReply(True, "", "")
    delivery, reason = Delivery(request, file, services, time.time()), _NO_RESULT
    try:
        try:
            await agent(delivery)
        except (OSError, QueueFileCorrupt, ServiceUnavailable) as err:
            LOG.warning(f"{request.queue_id}: {err}")
            reason = f"delivery failed: {getattr(err, 'strerror', None) or err}"
        if left := delivery.unfinished:
            await delivery.finish_all(left, Deferred(dsn="4.3.0", reason=reason, relay="none"))
        return delivery.reply()
    finally:
        file.close()


def delivery_handlers(runtime: Runtime, agent: Agent, services: DeliveryServices) -> Handlers:
    """The handlers of a delivery agent."""

    async def serve(connection: Connection) -> None:
        await connection.opened()
        connection.send(AgentReady())
        while True:
            request = await connection.receive_as(DeliverRequest)
            (fd,) = connection.take_descriptors(1)
            connection.send(await _deliver(agent, services, request, fd))

    return Handlers(stream=exchanges(runtime, serve), descriptors=True)
