"""Reports to the sender that cleanup(8) requests from bounce(8) and trace(8)."""

import time
from collections.abc import Sequence
from typing import Final

from daemons.cleanup.status import Refused
from libmail.clients.bounce import report_on
from libmail.ipc.batches import batches
from libmail.ipc.messages import (
    BounceAppend,
    BounceReply,
    CleanupStatus,
    Envelope,
    QueueId,
    Recipient,
    Target,
)
from libmail.log import LOG
from libmail.log.events import DeliveryStatus
from libmail.service.pool import ServiceClient, ServiceUnavailable

__all__ = ["Reports"]

_AT_ONCE: Final = 500  # recipients in a request


class Reports:
    """Clients of bounce(8) and trace(8)."""

    def __init__(self, bounce: ServiceClient, trace: ServiceClient) -> None:
        self._bounce = bounce
        self._trace = trace

    async def expanded(self, queue_id: QueueId, targets: Sequence[Target]) -> None:
        """Record the expansion of recipients. Raises Refused when that fails."""
        try:
            recorded = await _record(self._trace, queue_id, targets)
        except ServiceUnavailable as err:
            LOG.warning(f"{queue_id}: {err}")
            raise _trouble() from err
        if not recorded:
            raise _trouble()

    async def bounce(
        self, queue_id: QueueId, queue_name: str, envelope: Envelope,
        recipients: Sequence[Recipient], reason: Refused,
    ) -> bool:  # fmt: skip
        """Return the message to its sender. False: that failed, for now."""
        targets = tuple(
            Target(
                address=recipient.address,
                orig_rcpt=recipient.orig_rcpt or recipient.address,
                dsn_orcpt=recipient.dsn_orcpt,
                notify=recipient.notify,
                offset=0,
                action="failed",
                status=reason.dsn,
                reason=reason.reason,
            )
            for recipient in recipients
        )
        flush = report_on("bounce", queue_name, queue_id, envelope)
        try:
            if not await _record(self._bounce, queue_id, targets):
                return False
            _log_bounced(queue_id, envelope.arrival, recipients, reason)
            reply = await self._bounce.call(flush, BounceReply)
        except ServiceUnavailable as err:
            LOG.warning(f"{queue_id}: {err}")
            return False
        return not reply.status


async def _record(pool: ServiceClient, queue_id: QueueId, targets: Sequence[Target]) -> bool:
    """Record all targets for a report; whether that succeeded. Raises ServiceUnavailable."""
    for some in batches(targets, _AT_ONCE):
        if (await pool.call(BounceAppend(queue_id, some), BounceReply)).status:
            return False
    return True


def _log_bounced(
    queue_id: QueueId, arrival: float, recipients: Sequence[Recipient], reason: Refused
) -> None:
    delay = time.time() - arrival
    for recipient in recipients:
        LOG.event(
            DeliveryStatus(
                queue_id=queue_id,
                recipient=recipient.address,
                orig_rcpt=recipient.orig_rcpt if recipient.orig_rcpt != recipient.address else "",
                relay="none",
                conn_use=0,
                delay=delay,
                delays=(delay, 0.0, 0.0, 0.0),
                dsn=reason.dsn,
                status="bounced",
                reason=reason.reason,
            )
        )


def _trouble() -> Refused:
    return Refused(CleanupStatus.DEFER, "4.3.0", "trace service failure")
