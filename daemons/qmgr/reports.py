"""What qmgr(8) itself tells bounce(8), defer(8) and trace(8)."""

import time
from typing import Literal

from daemons.qmgr.message import Message
from libmail.clients.bounce import report_on
from libmail.ipc.messages import (
    AddressStatus,
    BounceAppend,
    BounceReply,
    Recipient,
    Target,
    VerifyReply,
    VerifyUpdate,
)
from libmail.log import LOG
from libmail.log.events import DeliveryStatus
from libmail.service.pool import ServiceClient, ServiceUnavailable


async def flush_report(pool: ServiceClient, message: Message, queue_name: str, kind: str) -> bool:
    """Have the report on a message sent; kind: of BounceFlush. Returns whether that was done."""
    request = report_on(kind, queue_name, message.queue_id, message.envelope)
    try:
        reply = await pool.call(request, BounceReply)
    except ServiceUnavailable as err:
        LOG.warning(f"{message.queue_id}: {err}")
        return False
    if reply.status:
        LOG.warning(f"{message.queue_id}: {kind} report not sent: {reply.reason or reply.status}")
    return reply.status == 0


async def record_deferred(
    pool: ServiceClient, message: Message, recipient: Recipient, dsn: str, reason: str
) -> None:
    """Log that a recipient is deferred without an agent, and keep why for the report."""
    target = Target(
        address=recipient.address,
        orig_rcpt=recipient.orig_rcpt,
        dsn_orcpt=recipient.dsn_orcpt,
        notify=recipient.notify,
        offset=recipient.offset,
        action="delayed",
        status=dsn,
        reason=reason,
        relay="none",
        time=time.time(),
    )
    try:
        await pool.call(BounceAppend(message.queue_id, (target,)), BounceReply)
    except ServiceUnavailable as err:
        LOG.warning(f"{message.queue_id}: {err}")
    log_status(message, recipient, dsn, "deferred", reason)


async def answer_probe(
    pool: ServiceClient, message: Message, recipient: Recipient, dsn: str, reason: str
) -> None:
    """Tell verify(8) what is known of an address that no agent is asked about.

    dsn: 2.x.x: it takes mail; else it cannot be tried now.
    """
    address, good = recipient.orig_rcpt or recipient.address, dsn.startswith("2")
    status = AddressStatus.OK if good else AddressStatus.DEFER
    try:
        await pool.call(VerifyUpdate(address, int(status), reason), VerifyReply)
    except ServiceUnavailable as err:
        LOG.warning(f"{message.queue_id}: {err}")
    log_status(message, recipient, dsn, "deliverable" if good else "undeliverable", reason)


def log_status(
    message: Message,
    recipient: Recipient,
    dsn: str,
    status: Literal["sent", "deferred", "deliverable", "undeliverable"],
    reason: str,
) -> None:
    """The line about a recipient that no agent has seen."""
    now = time.time()
    LOG.event(
        DeliveryStatus(
            queue_id=message.queue_id,
            recipient=recipient.address,
            orig_rcpt="" if recipient.orig_rcpt == recipient.address else recipient.orig_rcpt,
            relay="none",
            conn_use=0,
            delay=now - message.arrival,
            delays=(message.queued - message.arrival, now - message.queued, 0.0, 0.0),
            dsn=dsn,
            status=status,
            reason=reason,
        )
    )
