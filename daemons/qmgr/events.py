"""The log lines of qmgr(8) that log analysers read, beside those of all programs."""

from typing import Literal, NamedTuple

from libmail.ipc.messages import QueueId
from libmail.log import LOG

__all__ = ["QueueActive", "QueueExpired"]


class QueueActive(NamedTuple):
    """A message has entered the active queue. size: octets of content."""

    queue_id: QueueId
    sender: str
    size: int
    recipients: int

    def text(self) -> str:
        """`ID: from=<a>, size=1, nrcpt=1 (queue active)`."""
        return (
            f"{self.queue_id}: from=<{LOG.address(self.sender)}>, size={self.size},"
            f" nrcpt={self.recipients} (queue active)"
        )


class QueueExpired(NamedTuple):
    """A message was in the queue for too long, or is to go by request (postsuper -e)."""

    queue_id: QueueId
    sender: str
    status: Literal["expired", "force-expired"]

    def text(self) -> str:
        """`ID: from=<a>, status=expired, returned to sender`."""
        sender = LOG.address(self.sender)
        return f"{self.queue_id}: from=<{sender}>, status={self.status}, returned to sender"
