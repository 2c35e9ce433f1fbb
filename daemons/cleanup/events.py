"""The log lines of cleanup(8) that log analysers read, beside those of all programs."""

from typing import NamedTuple

from libmail.ipc.messages import Envelope, QueueId
from libmail.log import LOG
from libmail.queue.origin import origin_of

__all__ = [
    "CheckLine",
    "MessageId",
    "MilterLine",
    "MimeErrorLine",
    "check_line",
    "shown_origin",
]


class MessageId(NamedTuple):
    """The Message-Id field of a message; message_id: its text, "<>" where there is none."""

    queue_id: QueueId
    message_id: str
    resent: bool = False

    def text(self) -> str:
        """`ID: message-id=<x@y>`."""
        return f"{self.queue_id}: {'resent-' if self.resent else ''}message-id={self.message_id}"


def _addresses(sender: str, recipient: str) -> str:
    to = f" to=<{LOG.address(recipient)}>" if recipient else ""
    return f" from=<{LOG.address(sender)}>{to}"


class CheckLine(NamedTuple):
    """header_checks and the like: what was done because of which line.

    action: "reject", "warning", "replace", ... where: "header", "body", "content". origin:
    "name[address]", "local". protocol, helo: "" for local mail. detail: of the table, or "".
    """

    queue_id: QueueId
    action: str
    where: str
    line: str
    origin: str
    sender: str
    recipient: str
    protocol: str
    helo: str
    detail: str

    def text(self) -> str:
        """`ID: reject: header Subject: x from c[::1]; from=<a> to=<b> proto=ESMTP helo=<c>: d`."""
        addresses = _addresses(self.sender, self.recipient)
        protocol = f" proto={self.protocol}" if self.protocol else ""
        helo = f" helo=<{self.helo}>" if self.helo else ""
        detail = f": {self.detail}" if self.detail else ""
        return (
            f"{self.queue_id}: {self.action}: {self.where} {self.line} from {self.origin};"
            f"{addresses}{protocol}{helo}{detail}"
        )


def shown_origin(envelope: Envelope) -> str:
    """Where a message comes from: "name[address]", or "local"."""
    origin = origin_of(envelope)
    name, address = origin.name, origin.address
    return f"{name}[{address}]" if name or address else "local"


def check_line(
    envelope: Envelope, queue_id: QueueId, recipient: str, action: str, where: str, line: str,
    detail: str,
) -> CheckLine:  # fmt: skip
    """The line for something in the content of a message. line, detail: printable."""
    origin = origin_of(envelope)
    return CheckLine(
        queue_id=queue_id,
        action=action,
        where=where,
        line=line,
        origin=shown_origin(envelope),
        sender=envelope.sender,
        recipient=recipient,
        protocol=origin.protocol,
        helo=origin.helo,
        detail=detail,
    )


class MimeErrorLine(NamedTuple):
    """A message is refused for its form. line: what shows it."""

    queue_id: QueueId
    reason: str
    line: str
    origin: str
    sender: str
    recipient: str

    def text(self) -> str:
        """`ID: reject: mime-error bad form: x from c[::1]; from=<a> to=<b>`."""
        return (
            f"{self.queue_id}: reject: mime-error {self.reason}: {self.line} from {self.origin};"
            f"{_addresses(self.sender, self.recipient)}"
        )


class MilterLine(NamedTuple):
    """What a Milter had done with a message. action: "milter-reject", "milter-hold", ..."""

    queue_id: str
    action: str
    where: str
    client: str
    what: str
    sender: str
    recipient: str
    protocol: str
    helo_name: str

    def text(self) -> str:
        """`ID: milter-reject: END-OF-MESSAGE from h[1.2.3.4]: 5.7.1 no; from=<a> to=<b> ...`."""
        parts = [
            f"{self.queue_id}: {self.action}: {self.where} from {self.client}: {self.what};",
            f"from=<{LOG.address(self.sender)}>",
        ]
        if self.recipient:
            parts.append(f"to=<{LOG.address(self.recipient)}>")
        if self.protocol:
            parts.append(f"proto={self.protocol}")
        if self.helo_name:
            parts.append(f"helo=<{self.helo_name}>")
        return " ".join(parts)
