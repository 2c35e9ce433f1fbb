"""The properties of an SMTP command. The table of all commands is `daemons.smtpd.verbs.VERBS`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from daemons.smtpd.answer import Answer

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["Run", "Verb"]

Run: TypeAlias = Callable[["Session", str], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Verb:
    """An SMTP command.

    run: carries the command out. off: the refusal of a command that is not available to this
    client, whatever its argument; None if it is available.
    keyword: announced by EHLO while the command is available. details: the text behind the keyword.

    no_argument: nothing may follow the name. before_tls: allowed before STARTTLS where clients have
    to encrypt (RFC 3207 §4). junk: does not deliver mail, so that it counts towards
    smtpd_junk_command_limit. last: the client has to wait for the reply (RFC 2920 §3.1). ends: ends
    the session. depends: whether it may be refused follows from what it is given, and by whom.
    """

    name: str
    run: Run
    off: Callable[["Session"], Answer | None] | None = None
    keyword: str = ""
    details: Callable[["Session"], str] | None = None
    no_argument: bool = False
    before_tls: bool = False
    junk: bool = False
    last: bool = False
    ends: bool = False
    depends: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depends", self.no_argument or self.off is not None)

    def announced(self, session: "Session") -> str:
        """Its line in the answer to EHLO, "" for none."""
        if not self.keyword or (self.off is not None and self.off(session) is not None):
            return ""
        return self.keyword if self.details is None else f"{self.keyword} {self.details(session)}"
