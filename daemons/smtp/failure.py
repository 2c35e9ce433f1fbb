"""Reasons for which mail is not delivered: text for log and reports, and RFC 3463 status."""

from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

from libmail.agents.delivery import Bounced, Deferred
from libmail.net.wire import Lost
from libmail.smtp.client import Phase, ServerReply

__all__ = [
    "ErrorClass",
    "Failure",
    "HandshakeFailed",
    "LocalTrouble",
    "NamedServer",
    "SiteFailed",
    "TlsRequirementFailed",
    "early_reply",
    "local_trouble",
    "lost",
    "refused",
    "refused_tls",
    "said",
]


ErrorClass: TypeAlias = Literal["data", "protocol"]


class NamedServer(Protocol):
    """A server. name: "host[address]". host: its name."""

    @property
    def host(self) -> str:
        """The name, or the address of a server that was given by address."""

    @property
    def name(self) -> str:
        """host[address]."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason. mta, diagnostic: of the server that gave it. site: the destination as a whole is
    in trouble, not this message. error_class: of notify_classes, whom it may concern. diag_type:
    whose words the diagnostic is. elsewhere: another server may do better, although it is final."""

    dsn: str
    reason: str
    mta: str = ""
    diagnostic: str = ""
    site: bool = False
    error_class: ErrorClass | None = None
    diag_type: str = "smtp"
    elsewhere: bool = False

    @property
    def temporary(self) -> bool:
        """Whether another server, or a later attempt, may succeed."""
        return self.dsn.startswith("4")

    def outcome(self, relay: str, conn_use: int = 0, tls: str = "") -> Bounced | Deferred:
        """For a recipient. relay: "host[address]:port" or "none". tls: see `DeliveryStatus`."""
        kind = Deferred if self.temporary else Bounced
        return kind(
            dsn=self.dsn,
            reason=self.reason,
            relay=relay,
            mta=self.mta,
            diag_type=self.diag_type if self.diagnostic else "",
            diag_text=self.diagnostic,
            conn_use=conn_use,
            tls=tls,
        )


class LocalTrouble(Exception):
    """A lookup table failed, which is no fault of the server."""


class SiteFailed(Exception):
    """The server accepts no mail from this system at all."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class TlsRequirementFailed(SiteFailed):
    """The TLS that the policy requires is not possible, or the server's identity does not match.

    lacks: which of the two, by the words of `daemons.smtp.requiretls`; "" where it is another
    trouble, or may be over soon.
    """

    def __init__(self, failure: Failure, lacks: str = "") -> None:
        super().__init__(failure)
        self.lacks = lacks


class HandshakeFailed(Exception):
    """The TLS handshake failed, and the connection cannot be used any more."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def lost(server: NamedServer, error: Lost) -> Failure:
    """The connection was lost or timed out."""
    if error.timed_out:
        text = f"conversation with {server.name} timed out while {error.phase.doing}"
    else:
        text = f"lost connection with {server.name} while {error.phase.doing}"
    return Failure("4.4.2", text, site=True)


def local_trouble(server: NamedServer) -> Failure:
    """A lookup table failed during the session."""
    return Failure("4.3.0", f"local data error while talking to {server.name}", error_class="data")


def refused(server: NamedServer, reply: ServerReply, *, soften: bool = False) -> Failure:
    """The server refused the session. soften: a 5xx greeting counts as temporary."""
    text = f"host {server.name} refused to talk to me: {reply.text}"
    failure = _answered(server, reply, text, site=True)
    if soften and not failure.temporary:
        return replace(failure, dsn=f"4{failure.dsn[1:]}")
    return failure


def refused_tls(server: NamedServer, reply: ServerReply) -> Failure:
    """The server offered STARTTLS, and refused it."""
    text = f"TLS is required, but host {server.name} refused to start TLS: {reply.text}"
    return _answered(server, reply, text, site=True)


def early_reply(server: NamedServer) -> Failure:
    """The server answers within TLS what we have not said: somebody else may have said it before
    us, into the same session (CVE-2009-3555)."""
    return Failure("4.7.0", f"host {server.name} sent a reply before its command", site=True)


def said(server: NamedServer, reply: ServerReply, phase: Phase) -> Failure:
    """The server refused a command."""
    text = f"host {server.name} said: {reply.text} (in reply to {phase.command})"
    return _answered(server, reply, text)


def _answered(server: NamedServer, reply: ServerReply, text: str, *, site: bool = False) -> Failure:
    error_class: ErrorClass | None = "protocol" if _breaks_protocol(reply.code) else None
    if reply.dsn[0] not in "45":
        dsn, text = "5.5.0", f"Protocol error: {text}"
    else:
        dsn = reply.dsn
    return Failure(dsn, text, server.host, reply.text, site, error_class)


def _breaks_protocol(code: int) -> bool:
    """Whether a reply shows a protocol error: syntax (RFC 5321 §4.2.2), or no 4xx or 5xx at all."""
    return not 400 <= code <= 599 or 500 <= code < 510 or code == 555
