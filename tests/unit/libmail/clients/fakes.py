"""A cleanup that is played here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from libmail.clients.milter import HandedOver
from libmail.ipc.messages import CleanupAmend, CleanupResult, Envelope, QueueId, Recipient
from libmail.service.pool import ServiceUnavailable

__all__ = ["FakeCleanup", "Message"]


@dataclass
class Message:
    """A submission."""

    flags: int
    queue_id: QueueId = field(default=QueueId("3Q1"))
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""
    finished: bool = False

    def milters(self, states: Sequence[HandedOver]) -> None:
        assert not states

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        self.sender = envelope.sender
        self.recipients = [recipient.address for recipient in recipients]

    async def write(self, data: bytes) -> None:
        self.content += data

    def amend(self, amendment: CleanupAmend) -> None:
        raise AssertionError("not expected")

    async def finish(self) -> CleanupResult:
        self.finished = True
        return CleanupResult(0, "", "", self.queue_id)

    def abort(self) -> None:
        raise AssertionError("not expected")


@dataclass
class FakeCleanup:
    """down: it cannot be reached."""

    down: bool = False
    messages: list[Message] = field(default_factory=list)

    async def open(self, flags: int) -> Message:
        if self.down:
            raise ServiceUnavailable("public/cleanup: nobody there")
        self.messages.append(Message(flags))
        return self.messages[-1]
