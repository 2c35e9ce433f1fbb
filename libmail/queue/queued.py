"""A message in the queue as a listing shows it. Imports nothing: postqueue(1) is to start fast."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["QueuedMessage", "QueuedRecipient"]


class QueuedRecipient:
    """A recipient still to do. reason: why it is delayed, or "". original: before aliases and
    the like, where that is another address, or ""."""

    __slots__ = ("address", "original", "reason")

    def __init__(self, address: str, reason: str = "", original: str = "") -> None:
        self.address = address
        self.original = original
        self.reason = reason


class QueuedMessage:
    """One message in a queue. time: arrival, of the epoch; size: octets."""

    __slots__ = (
        "forced_expire",
        "queue_id",
        "queue_name",
        "recipients",
        "sender",
        "size",
        "time",
    )

    def __init__(
        self,
        queue_name: str,
        queue_id: str,
        *,
        time: int,
        size: int,
        forced_expire: bool,
        sender: str,
        recipients: Sequence[QueuedRecipient],
    ) -> None:
        self.queue_name = queue_name
        self.queue_id = queue_id
        self.time = time
        self.size = size
        self.forced_expire = forced_expire
        self.sender = sender
        self.recipients = recipients
