"""Requests to bounce(8), defer(8) and trace(8) to send the report on a message."""

from libmail.ipc.messages import BounceFlush, Envelope, QueueId

__all__ = ["report_on"]


def report_on(kind: str, queue_name: str, queue_id: QueueId, envelope: Envelope) -> BounceFlush:
    """The request to send the report on a message. kind: see `BounceFlush`."""
    return BounceFlush(
        kind=kind,
        queue_name=queue_name,
        queue_id=queue_id,
        sender=envelope.sender,
        envelope_flags=envelope.flags,
        dsn_envid=envelope.dsn_envid,
        verp_delims=envelope.verp_delims,
        targets=(),
    )
