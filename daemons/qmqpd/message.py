"""A message that has come by QMQP, on its way to cleanup(8)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from daemons.qmqpd.prepared import QmqpdParams
from libmail.ipc.messages import CleanupResult, CleanupStatus, Envelope, EnvelopeFlag, Recipient
from libmail.lookup.facts import Client
from libmail.message.dates import rfc5322_date
from libmail.message.first_lines import mend_first_lines
from libmail.message.line_endings import LineEndings
from libmail.message.verp import usable_delimiters
from libmail.net.ends import address_literal
from libmail.smtp.address import address_fault, without_line_breaks
from libmail.smtp.qmqp import Status
from libmail.text.quoting import header_address

__all__ = ["Answer", "Message", "answer_to"]

_VERP: Final = "-@[]"
_FIRST: Final = 4096  # octets of content, in which its first lines are looked at
_OVERHEAD: Final = 200  # octets of memory for a recipient, besides its text
_MOST_RECIPIENTS: Final = 1 << 26  # octets of memory

# What a status of cleanup means; the first that is set counts.
_STATUS: Final = (
    (CleanupStatus.DEFER, Status.LATER, "4.3.0 service unavailable"),
    (CleanupStatus.BAD, Status.LATER, "internal error 1"),
    (CleanupStatus.WRITE, Status.LATER, "queue file write error"),
    (CleanupStatus.SPACE, Status.LATER, "queue file write error"),
    (CleanupStatus.RECIPIENTS, Status.REFUSED, "no recipients specified"),
    (CleanupStatus.SIZE, Status.REFUSED, "message too large"),
    (CleanupStatus.HOPS, Status.REFUSED, "too many hops"),
    (CleanupStatus.CONTENT, Status.REFUSED, "5.7.1 message content rejected"),
)
_REASONED: Final = CleanupStatus.DEFER | CleanupStatus.CONTENT


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client is told."""

    status: Status
    text: str


def answer_to(result: CleanupResult) -> Answer:
    """What cleanup's result means to the client."""
    if not result.status:
        return Answer(Status.OK, f"Ok: queued as {result.queue_id}")
    for status, outcome, text in _STATUS:
        if result.status & status:
            reason = text
            if status & _REASONED and result.reason:
                reason = f"{result.dsn} {result.reason}"
            return Answer(outcome, f"Error: {reason}")
    return Answer(Status.LATER, f"Error: internal error {result.status}")


@dataclass(slots=True)
class Message:
    """What has come of it so far. fault: why it cannot be taken for good, "" if it may be."""

    arrival: float
    sender: str = ""
    verp_delims: str = ""
    fault: str = ""
    recipients: list[Recipient] = field(default_factory=list)
    _pieces: list[bytes] = field(default_factory=list)
    _held: int = 0  # octets of the recipients

    def add_content(self, piece: bytes) -> None:
        """A piece of the content."""
        self._pieces.append(piece)

    def set_sender(self, given: bytes, allowed: str) -> None:
        """The sender as the client gave it; "prefix-@origin-@[]" asks for VERP.

        allowed: verp_delimiter_filter.
        """
        sender = self._address(given)
        if sender.endswith(_VERP):
            owner, at, origin = sender.removesuffix(_VERP).rpartition("@")
            if owner and at:
                sender = f"{owner[:-1]}@{origin}"
                self._set_verp(f"{owner[-1]}=", allowed)
        self.sender = sender

    def _set_verp(self, delimiters: str, allowed: str) -> None:
        self.verp_delims = delimiters
        if not usable_delimiters(delimiters, allowed):
            need = f'Need two characters from "{allowed}"'
            self.fault = f'Invalid VERP delimiters: "{delimiters}". {need}'

    def add_recipient(self, given: bytes) -> None:
        """A recipient as the client gave it."""
        self._held += len(given) + _OVERHEAD
        if self._held > _MOST_RECIPIENTS:
            self.fault = "too many recipients"
        if not self.fault:
            self.recipients.append(Recipient(self._address(given)))

    def _address(self, given: bytes) -> str:
        address = without_line_breaks(given.decode("utf-8", "surrogateescape"))
        self.fault = self.fault or address_fault(address)
        return address

    def envelope(self, client: Client, params: QmqpdParams, cleanup_flags: int) -> Envelope:
        """For cleanup."""
        return Envelope(
            sender=self.sender,
            flags=EnvelopeFlag.LOCAL,
            cleanup_flags=cleanup_flags,
            arrival=self.arrival,
            content_filter=params.content_filter,
            verp_delims=self.verp_delims,
            client_name=client.name,
            reverse_client_name=client.reverse_name,
            client_address=client.address,
            client_port=client.port,
            protocol_name="QMQP",
            server_address=client.server_address,
            server_port=client.server_port,
        )

    def content(self) -> Iterator[bytes]:
        """In wire form, for once: what was handed out is forgotten."""
        lines, pieces = LineEndings(keep_cr=True), self._pieces
        pieces.reverse()
        first = b""
        while pieces and len(first) < _FIRST:
            first += pieces.pop()
        yield mend_first_lines(lines.feed(first), complete=True, quoted=True) or b""
        while pieces:
            yield lines.feed(pieces.pop())
        yield lines.end()

    def received(self, client: Client, params: QmqpdParams, queue_id: str) -> bytes:
        """The header that goes in front of the content, RFC 5321 §4.4, in wire form."""
        place = f"{client.name} [{address_literal(client.address)}]"
        by = f"\tby {params.myhostname} ({params.mail_name}) with QMQP"
        date = rfc5322_date(int(self.arrival))
        if len(self.recipients) == 1:
            whom = header_address(self.recipients[0].address)
            rest = [f"{by} id {queue_id}", f"\tfor <{whom}>; {date}"]
        else:
            rest = [by, f"\tid {queue_id}; {date}"]
        lines = [f"Received: from {client.name} ({place})", *rest]
        return "".join([f"{line}\r\n" for line in lines]).encode("utf-8", "surrogateescape")
