"""What a command is answered with: a reply, what it means for the client, and what follows it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from libmail.lookup.facts import ErrorClass
from libmail.smtp.reply import Reply

__all__ = [
    "CLOSING",
    "Action",
    "Answer",
    "Kind",
    "SessionEnded",
    "answer",
    "by_policy",
    "decided",
    "restarted",
    "uncounted",
]

CLOSING: Final = frozenset({421, 521})
"""Reply codes after which the connection is closed."""

_PROTOCOL_CODES: Final = frozenset({500, 501, 503})

Action: TypeAlias = Callable[[], Awaitable[None]]
Kind: TypeAlias = ErrorClass | Literal["protocol", "resource", ""]


class SessionEnded(Exception):
    """The session is over; what there was to say has been said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply. error: it counts against the client, see smtpd_hard_error_limit.

    kind: of the error, for notify_classes; "" where whoever refused has noted it. then: what is
    to be done when the client has been sent the reply, as the handshake after STARTTLS. counted: as
    a success, if it is no error.
    """

    reply: Reply
    error: bool
    kind: Kind = ""
    then: Action | None = None
    counted: bool = True


def answer(reply: Reply) -> Answer:
    """The usual: what refuses is an error, mostly one of protocol."""
    broken = reply.code in _PROTOCOL_CODES or (reply.code >= 400 and reply.dsn[2:4] == "5.")
    return Answer(reply, error=reply.code >= 400, kind="protocol" if broken else "")


def by_policy(reply: Reply) -> Answer:
    """We do not want to; it is not that the client did something wrong."""
    return Answer(reply, error=True, kind="policy")


def decided(reply: Reply) -> Answer:
    """Restrictions, or others who note the kind of error themselves, have refused."""
    return Answer(reply, error=True)


def uncounted(reply: Reply) -> Answer:
    """A refusal that the client is not to blame for."""
    return Answer(reply, error=False)


def restarted(reply: Reply) -> Answer:
    """The session has begun anew: what is said is a greeting, or the refusal of a connection."""
    return Answer(reply, error=False, counted=False)
