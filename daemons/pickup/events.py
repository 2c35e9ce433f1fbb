"""The log lines of pickup(8) that log analysers read."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId
from libmail.log import LOG

__all__ = ["Pickup"]


class Pickup(NamedTuple):
    """A local user's message is being taken. orig_id: its queue id before a requeue, or ""."""

    queue_id: QueueId
    uid: int
    sender: str
    orig_id: str

    def text(self) -> str:
        """`ID: uid=0 from=<a>`."""
        orig = f" orig_id={self.orig_id}" if self.orig_id else ""
        return f"{self.queue_id}: uid={self.uid} from=<{LOG.address(self.sender)}>{orig}"
