"""How much is in memory, and how much of it is not done: the one place that counts it.

In recipients, of all messages, of one message, of one transport; and in entries, of a message and
of a destination. What has been taken in leaves again in one way: `done`.
"""

from daemons.qmgr.jobs import Destination, Entry, Job, Peer
from daemons.qmgr.message import Message

__all__ = ["Counts"]


class Counts:
    """recipients: in memory, of all messages."""

    __slots__ = ("recipients",)

    def __init__(self) -> None:
        self.recipients = 0

    def taken(self, job: Job, destination: Destination, recipients: int, entries: int) -> None:
        """Recipients of a job were added, as so many new entries."""
        message = job.message
        self.recipients += recipients
        message.in_core += recipients
        destination.transport.in_core += recipients
        message.open += entries
        destination.waiting += entries
        job.entries += entries

    @staticmethod
    def selected(destination: Destination) -> None:
        """A delivery begins."""
        destination.waiting -= 1
        destination.busy += 1
        destination.transport.busy += 1

    @staticmethod
    def withdrawn(peer: Peer) -> None:
        """Its entries do not wait for a delivery any more."""
        entries = len(peer.entries)
        peer.job.entries -= entries
        peer.destination.waiting -= entries

    def ended(self, entry: Entry) -> None:
        """Its delivery is over."""
        destination = entry.peer.destination
        destination.busy -= 1
        destination.transport.busy -= 1
        self.done(entry)

    def done(self, entry: Entry) -> None:
        """Its recipients have outcomes, or have been added elsewhere."""
        recipients = len(entry.recipients)
        self.recipients -= recipients
        entry.message.in_core -= recipients
        entry.message.open -= 1
        entry.peer.destination.transport.in_core -= recipients

    @staticmethod
    def held(message: Message) -> None:
        """Something goes on with the message that is no entry: it does not end meanwhile."""
        message.open += 1

    @staticmethod
    def released(message: Message) -> None:
        """That is over."""
        message.open -= 1
