"""The log lines of cleanup(8) that log analysers read, beside those of all programs."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId

__all__ = ["MessageId"]


class MessageId(NamedTuple):
    """The Message-Id field of a message; message_id: its text, "<>" where there is none."""

    queue_id: QueueId
    message_id: str
    resent: bool = False

    def text(self) -> str:
        """`ID: message-id=<x@y>`."""
        return f"{self.queue_id}: {'resent-' if self.resent else ''}message-id={self.message_id}"
