"""The log lines of smtp(8) that log analysers read, beside the status of recipients."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId

__all__ = ["CheckLine", "ConnectFailed", "ServerFailed"]


class ConnectFailed(NamedTuple):
    """A server cannot be reached."""

    host: str
    address: str
    port: int
    reason: str

    def text(self) -> str:
        """`connect to mx.example[1.2.3.4]:25: Connection refused`."""
        return f"connect to {self.host}[{self.address}]:{self.port}: {self.reason}"


class ServerFailed(NamedTuple):
    """A server does not take a message for now, and the next one will be tried."""

    queue_id: QueueId
    reason: str

    def text(self) -> str:
        """`ID: host mx.example[1.2.3.4] said: 451 later (in reply to MAIL FROM command)`."""
        return f"{self.queue_id}: {self.reason}"


class CheckLine(NamedTuple):
    """smtp_header_checks and the like: what was done to which line.

    action: "warning", "info", "replace", ... where: "header", "body". detail: of the table, or "".
    """

    queue_id: QueueId
    action: str
    where: str
    line: str
    detail: str

    def text(self) -> str:
        """`ID: warning: header Subject: x: detail`."""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.queue_id}: {self.action}: {self.where} {self.line}{detail}"
