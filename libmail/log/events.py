"""The log lines of several programs that operators and their tools read: one NamedTuple for each.

Those of one program are in its events.py.

`text()` is the classic form without time, host and tag, with addresses as
info_log_address_format has them; the fields are those of the JSON form, addresses in internal form.
pflogsumm, fail2ban and the like depend on every character of them.
"""

from typing import Final, Literal, NamedTuple

from libmail.ipc.messages import QueueId
from libmail.log.logger import LOG

__all__ = [
    "ConnectLine",
    "DeliveryStatus",
    "HostnameMismatch",
    "QueueRemoved",
    "seconds_text",
]


_USUAL_DIGITS: Final = 2
# Seconds below which two digits need one more decimal.
_LIMITS: Final = (1, 0.1, 0.01, 0.001, 0.0001)


def seconds_text(seconds: float) -> str:
    """A delay for people: two significant digits, whole from 10 on.

    There are at most as many decimals as delay_logging_resolution_limit says.
    """
    digits = LOG.delay_digits
    if seconds < 0.005 and digits == _USUAL_DIGITS:  # five times for each delivery
        return "0"
    if seconds < 10 and digits == _USUAL_DIGITS:
        return f"{seconds:.2g}" if seconds >= 0.1 else f"{seconds:.2f}".rstrip("0")
    if seconds >= 10:
        return f"{seconds:.0f}"
    if digits > 1:
        digits = min(digits, 1 if seconds >= 1 else 1 + sum(seconds < limit for limit in _LIMITS))
    text = f"{seconds:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


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
        delays = "/".join(map(seconds_text, self.delays))
        return (
            f"{self.queue_id}: to=<{LOG.address(self.recipient)}>{orig}, relay={self.relay}{use},"
            f" delay={seconds_text(self.delay)}, delays={delays}{tls}, dsn={self.dsn},"
            f" status={self.status} ({self.reason})"
        )


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


class ConnectLine(NamedTuple):
    """A client has connected. client: name[address]."""

    client: str

    def text(self) -> str:
        """`connect from host[1.2.3.4]`."""
        return f"connect from {self.client}"


class HostnameMismatch(NamedTuple):
    """A client's name does not lead back to its address. reason: the resolver's, or ""."""

    name: str
    address: str
    reason: str = ""

    def text(self) -> str:
        """`hostname h.example does not resolve to address 1.2.3.4: Name or service not known`."""
        reason = f": {self.reason}" if self.reason else ""
        return f"hostname {self.name} does not resolve to address {self.address}{reason}"
