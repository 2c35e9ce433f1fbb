"""The log lines of smtp(8) that log analysers read, beside the status of recipients."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId

__all__ = [
    "CheckLine",
    "ConnectFailed",
    "ServerFailed",
    "TlsError",
    "TlsEstablished",
    "TlsOffered",
    "TlsPeer",
]


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


class TlsEstablished(NamedTuple):
    """A handshake with a server succeeded. summary: the text of the line.

    trust: Anonymous, Untrusted, Trusted or Verified. protocol: such as TLSv1.3. resumed: a session
    of before.
    """

    server: str
    trust: str
    protocol: str
    cipher: str
    resumed: bool
    summary: str

    def text(self) -> str:
        """`Verified TLS connection established to mx.example[1.2.3.4]:25: TLSv1.3 with ...`."""
        return self.summary


class TlsPeer(NamedTuple):
    """A line about a server's certificate. what: all of it."""

    server: str
    what: str

    def text(self) -> str:
        """`certificate verification failed for mx.example[1.2.3.4]:25: self-signed certificate`."""
        return self.what


class TlsError(NamedTuple):
    """A handshake has failed."""

    server: str
    reason: str

    def text(self) -> str:
        """`SSL_connect error to mx.example[1.2.3.4]:25: lost connection`."""
        return f"SSL_connect error to {self.server}: {self.reason}"


class TlsOffered(NamedTuple):
    """A server offered STARTTLS, which was not used."""

    host: str

    def text(self) -> str:
        """`Host offered STARTTLS: [mx.example]`."""
        return f"Host offered STARTTLS: [{self.host}]"
