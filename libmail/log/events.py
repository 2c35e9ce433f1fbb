"""The log lines that operators and their tools read: one NamedTuple for each.

`text()` is the classic form without time, host and tag, with addresses as
info_log_address_format has them; the fields are those of the JSON form, addresses in internal form.
pflogsumm, fail2ban and the like depend on every character of them.
"""

from typing import Literal, NamedTuple

from libmail.ipc.messages import QueueId
from libmail.log.logger import LOG

__all__ = [
    "DeliveryStatus",
    "MessageId",
    "MilterReject",
    "NotificationSent",
    "Pickup",
    "QueueActive",
    "QueueExpired",
    "QueueRemoved",
    "seconds_text",
]


def seconds_text(seconds: float) -> str:
    """A delay for people: two significant digits, at most two decimals, whole from 10 on."""
    if seconds >= 10:
        return f"{seconds:.0f}"
    if seconds >= 0.1:
        return f"{seconds:.2g}"
    return "0" if seconds < 0.005 else f"{seconds:.2f}".rstrip("0")


class DeliveryStatus(NamedTuple):
    """What happened to one recipient. Delays in seconds: total, then

    a: before qmgr, b: in qmgr, c: connection set-up, d: transmission. tls: the level of TLS that
    was wanted, and what became of it, "" where there was no connection to speak of.
    """

    queue_id: QueueId
    recipient: str
    orig_rcpt: str
    relay: str
    conn_use: int
    delay: float
    delays: tuple[float, float, float, float]
    dsn: str
    status: Literal[
        "sent", "deferred", "SOFTBOUNCE", "bounced", "deliverable", "undeliverable", "expired"
    ]
    reason: str
    tls: str = ""

    def text(self) -> str:
        """`ID: to=<a>, relay=r, delay=1, delays=a/b/c/d, dsn=2.0.0, status=sent (x)`."""
        orig = f", orig_to=<{LOG.address(self.orig_rcpt)}>" if self.orig_rcpt else ""
        use = f", conn_use={self.conn_use}" if self.conn_use > 1 else ""
        tls = f", tls={self.tls}" if self.tls else ""
        delays = "/".join([seconds_text(delay) for delay in self.delays])
        return (
            f"{self.queue_id}: to=<{LOG.address(self.recipient)}>{orig}, relay={self.relay}{use},"
            f" delay={seconds_text(self.delay)}, delays={delays}{tls}, dsn={self.dsn},"
            f" status={self.status} ({self.reason})"
        )


class MessageId(NamedTuple):
    """The Message-Id field of a message; message_id: its text, "<>" where there is none."""

    queue_id: QueueId
    message_id: str
    resent: bool = False

    def text(self) -> str:
        """`ID: message-id=<x@y>`."""
        return f"{self.queue_id}: {'resent-' if self.resent else ''}message-id={self.message_id}"


class NotificationSent(NamedTuple):
    """A delivery status notification is on its way. who: sender or postmaster."""

    queue_id: QueueId
    who: str
    kind: str
    notification_id: QueueId

    def text(self) -> str:
        """`ID: sender non-delivery notification: ID`."""
        return f"{self.queue_id}: {self.who} {self.kind} notification: {self.notification_id}"


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


class MilterReject(NamedTuple):
    """A local user's message is refused by a Milter, or because one cannot be asked."""

    reason: str

    def text(self) -> str:
        """`milter-reject: 5.7.1 Command rejected`."""
        return f"milter-reject: {self.reason}"


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


class QueueRemoved(NamedTuple):
    """All is done for a message, or it did not get into the queue.

    why: "canceled": its client went away or was refused; "discarded": a rule says so, or it was
    bounced at once.
    """

    queue_id: QueueId
    why: Literal["", "canceled", "discarded"] = ""

    def text(self) -> str:
        """`ID: removed`, `ID: removed (canceled)`."""
        return f"{self.queue_id}: removed ({self.why})" if self.why else f"{self.queue_id}: removed"
