"""The log lines of pickup(8) that log analysers read."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId
from libmail.log import LOG

__all__ = ["MilterReject", "Pickup"]


class MilterReject(NamedTuple):
    """A local user's message is refused by a Milter, or because one cannot be asked."""

    reason: str

    def text(self) -> str:
        """`milter-reject: 5.7.1 Command rejected`."""
        return f"milter-reject: {self.reason}"


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
