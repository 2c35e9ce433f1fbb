"""The log lines of smtp(8) that log analysers read, beside the status of recipients."""

from typing import NamedTuple

from libmail.ipc.messages import QueueId
from libmail.tls.tlsrpt import ReportedFailure, ReportedServer

__all__ = [
    "CheckLine",
    "ConnectFailed",
    "ServerFailed",
    "TlsError",
    "TlsEstablished",
    "TlsOffered",
    "TlsPeer",
    "TlsReported",
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


class TlsReported(NamedTuple):
    """How a handshake ended, for reports to the domain that mail goes to (RFC 8460).

    status: success, failure. failure_type, failure_reason: "" where there is nothing to say.
    """

    status: str
    domain: str
    host: str
    address: str
    failure_type: str
    failure_reason: str

    @classmethod
    def of(
        cls, domain: str, server: ReportedServer, failure: ReportedFailure | None
    ) -> "TlsReported":
        """For a handshake with a server of the domain."""
        if failure is None:
            return cls("success", domain, server.host, server.address, "", "")
        kind, reason = failure.kind.label, failure.code
        return cls("failure", domain, server.host, server.address, kind, reason)

    def text(self) -> str:
        """`TLSRPT: status=success, domain=a.example, receiving_mx=mx.a.example[1.2.3.4]`."""
        kind = f", failure_type={self.failure_type}" if self.failure_type else ""
        reason = f", failure_reason={self.failure_reason}" if self.failure_reason else ""
        server = f"{self.host}[{self.address}]"
        head = f"TLSRPT: status={self.status}, domain={self.domain}, receiving_mx={server}"
        return f"{head}{kind}{reason}"
