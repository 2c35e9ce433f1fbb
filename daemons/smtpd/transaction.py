"""One mail transaction: from MAIL to the end of the content."""

from dataclasses import dataclass, field
from typing import Protocol

from libmail.clients.cleanup import MailSubmission
from libmail.ipc.messages import Recipient, ResolveReply

__all__ = ["Extras", "Resolver", "Transaction"]


class Resolver(Protocol):
    """Tells where an address is; see libmail.clients.rewrite."""

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail for an address goes. Raises ServiceUnavailable."""

    async def resolve_completed(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`, of an address as a client gave it."""


@dataclass(slots=True)
class Extras:
    """What restrictions asked to be done with the message."""

    cleanup_flags: int = 0
    content_filter: str = ""
    redirect: str = ""
    bcc: list[str] = field(default_factory=list)
    prepend: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Transaction:
    """sender: internal form. flags: EnvelopeFlag bits. arrival: time.time() of MAIL.

    submission: to cleanup, from the first accepted recipient on. overshoot: recipients beyond the
    limit. size: octets of content so far, lines: of those that make whole lines.
    """

    sender: str
    flags: int
    dsn_envid: str
    arrival: float
    recipients: list[Recipient] = field(default_factory=list)
    submission: MailSubmission | None = None
    overshoot: int = 0
    size: int = 0
    lines: int = 0
    too_large: bool = False
    verp_delims: str = ""
    lost: bool = False  # cleanup cannot be reached any more
    begun: bool = False  # the head of the message was written
    held: bytes = b""  # content that is not enough to begin with

    def abort(self) -> None:
        """Drop the message."""
        submission, self.submission = self.submission, None
        if submission is not None:
            submission.abort()
