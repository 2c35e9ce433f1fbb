"""What a command of SMTP is to its session. The table of all is `daemons.smtpd.verbs.VERBS`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from daemons.smtpd.answer import Answer

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["Run", "Verb"]

Run: TypeAlias = Callable[["Session", str], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Verb:
    """A command.

    run: carries it out; None where there is nothing to run yet, and `off` says why. off: tells why
    the client at hand may not give it, whatever it says, or None if it may: this is a gate, and
    decides whether `keyword` (of EHLO) is announced. details: what follows the keyword there.

    bare: nothing may follow the name. clear: may be given where clients have to encrypt (RFC 3207
    §4). limited: it does no mail, so smtpd_junk_command_limit holds. last: the client has to wait
    for the answer (RFC 2920 §3.1). ends: so does the session.
    """

    name: str
    run: Run | None = None
    off: Callable[["Session"], Answer | None] | None = None
    keyword: str = ""
    details: Callable[["Session"], str] | None = None
    bare: bool = False
    clear: bool = False
    limited: bool = False
    last: bool = False
    ends: bool = False

    def announced(self, session: "Session") -> str:
        """Its line in the answer to EHLO, "" for none."""
        if not self.keyword or (self.off is not None and self.off(session) is not None):
            return ""
        return self.keyword if self.details is None else f"{self.keyword} {self.details(session)}"
