"""The log lines of qmqpd(8)."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId

__all__ = ["DisconnectLine", "MessageLine", "MessageRefused", "PacketFailed"]


class MessageLine(NamedTuple):
    """A message begins. client: name[address]."""

    queue_id: QueueId
    client: str

    def text(self) -> str:
        """`ID: client=host[1.2.3.4]`."""
        return f"{self.queue_id}: client={self.client}"


class DisconnectLine(NamedTuple):
    """A session is over."""

    client: str

    def text(self) -> str:
        """`disconnect from host[1.2.3.4]`."""
        return f"disconnect from {self.client}"


class PacketFailed(NamedTuple):
    """The client did not give all that makes a message. queue_id: "" before there is one."""

    queue_id: str
    client: str
    reason: str
    doing: str

    def text(self) -> str:
        """`ID: host[1.2.3.4]: lost connection while receiving sender address`."""
        return f"{self.queue_id or 'NOQUEUE'}: {self.client}: {self.reason} while {self.doing}"


class MessageRefused(NamedTuple):
    """A message was not taken. reason: what the client was told."""

    queue_id: str
    client: str
    reason: str

    def text(self) -> str:
        """`ID: host[1.2.3.4]: Error: too many hops`."""
        return f"{self.queue_id or 'NOQUEUE'}: {self.client}: {self.reason}"
