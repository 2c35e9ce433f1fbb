"""One mail transaction: from MAIL to the end of the content."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from daemons.smtpd.before_queue import FilteredMail
from daemons.smtpd.intake import Intake
from libmail.clients.cleanup import MailSubmission
from libmail.ipc.messages import CleanupFlag, DsnNotify, Recipient, ResolveReply
from libmail.lookup.facts import Effect

__all__ = ["NO_EXTRAS", "Chunks", "Extras", "RouteFinder", "Transaction"]

_HOLD: Final = int(CleanupFlag.HOLD)
_FLAGS: Final = {"hold": _HOLD, "discard": int(CleanupFlag.DISCARD)}


class RouteFinder(Protocol):
    """Resolves addresses: `libmail.clients.rewrite.RewriteClient`."""

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail for an address goes. Raises ServiceUnavailable."""

    async def resolve_completed(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`, of an address as a client gave it."""


class Extras(NamedTuple):
    """Actions that restrictions requested for the message. cleanup_flags: CleanupFlag bits."""

    cleanup_flags: int = 0
    content_filter: str = ""
    redirect: str = ""
    bcc: tuple[str, ...] = ()
    prepend: tuple[str, ...] = ()

    def has(self, effect: Effect) -> bool:
        """Whether an action was requested before, so that it need not be logged again."""
        return effect.action == "hold" and bool(self.cleanup_flags & _HOLD)

    def and_also(self, effect: Effect) -> "Extras":
        """Another action, too, if it is about the message."""
        action = effect.action
        if action in _FLAGS:
            return self._replace(cleanup_flags=self.cleanup_flags | _FLAGS[action])
        if action == "filter":
            return self._replace(content_filter=effect.argument)
        if action == "redirect":
            return self._replace(redirect=effect.argument)
        if action == "bcc":
            return self._replace(bcc=(*self.bcc, effect.argument))
        if action == "prepend":
            return self._replace(prepend=(*self.prepend, effect.argument))
        return self

    def copies(self) -> list[Recipient]:
        """The recipients of BCC actions, without reports."""
        return [Recipient(address, address, "", DsnNotify.NEVER) for address in self.bcc]


NO_EXTRAS: Final = Extras()


@dataclass(slots=True)
class Chunks:
    """What the BDAT commands of one message have announced, from the first one to the last.

    octets: of all chunks that were taken. refused: one was not, so that no later one is: what
    would be delivered is not what was sent. discarded: octets of chunks that were not taken.
    """

    octets: int = 0
    refused: bool = False
    discarded: int = 0


@dataclass(slots=True, kw_only=True)
class Transaction:
    """sender: internal form. flags: EnvelopeFlag bits. arrival: time.time() of MAIL.

    submission: to cleanup, from the first accepted recipient on; filtered: or to the before-queue
    filter. overshoot: recipients beyond the limit. intake: of the content, when it has begun. line:
    the MAIL command.
    """

    sender: str
    flags: int
    dsn_envid: str
    arrival: float
    verp_delims: str = ""
    line: str = ""
    recipients: list[Recipient] = field(default_factory=list)
    submission: MailSubmission | None = None
    filtered: FilteredMail | None = None
    overshoot: int = 0
    intake: Intake | None = None

    @property
    def octets(self) -> int:
        """Of whole lines of content that were received."""
        return 0 if self.intake is None else self.intake.lines

    def abort(self) -> None:
        """Drop the message."""
        self.intake = None  # it refers to the transaction: neither is to wait for the collector
        submission, self.submission = self.submission, None
        if submission is not None:
            submission.abort()
        filtered, self.filtered = self.filtered, None
        if filtered is not None:
            filtered.abort()
