"""The log lines of bounce(8) that log analysers read."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId

__all__ = ["NotificationSent"]


class NotificationSent(NamedTuple):
    """A delivery status notification is on its way. who: sender or postmaster."""

    queue_id: QueueId
    who: str
    kind: str
    notification_id: QueueId

    def text(self) -> str:
        """`ID: sender non-delivery notification: ID`."""
        return f"{self.queue_id}: {self.who} {self.kind} notification: {self.notification_id}"
