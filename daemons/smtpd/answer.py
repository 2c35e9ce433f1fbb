"""The answer to a command: the reply, how it counts, and what to do after it was sent."""

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from libmail.lookup.facts import ErrorClass
from libmail.smtp.reply import Reply

__all__ = [
    "CLOSING",
    "WRITE_ERROR",
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
    """The session is over; the last reply, if any, has been sent."""


class Answer(NamedTuple):
    """The reply to a command, and how it counts.

    error: counts towards smtpd_hard_error_limit. kind: class of the error, for notify_classes; ""
    where it was noted already. then: called when the reply has been sent, such as for the handshake
    after STARTTLS. counted: if no error, counts as a success of the command in the log.
    """

    reply: Reply
    error: bool
    kind: Kind = ""
    then: Action | None = None
    counted: bool = True


def answer(reply: Reply) -> Answer:
    """The usual answer: a 4xx or 5xx reply is an error, most often one of protocol."""
    if reply.code < 400:
        return Answer(reply, error=False)
    broken = reply.code in _PROTOCOL_CODES or reply.dsn[2:4] == "5."
    return Answer(reply, error=True, kind="protocol" if broken else "")


def by_policy(reply: Reply) -> Answer:
    """A refusal by local policy: the client broke no rule of the protocol."""
    return Answer(reply, error=True, kind="policy")


def decided(reply: Reply) -> Answer:
    """A refusal whose kind of error the caller has noted already, as for restrictions."""
    return Answer(reply, error=True)


def uncounted(reply: Reply) -> Answer:
    """A refusal that does not count as an error of the client."""
    return Answer(reply, error=False)


def restarted(reply: Reply) -> Answer:
    """The session has started over: the reply is a greeting, or the refusal of a connection."""
    return Answer(reply, error=False, counted=False)


WRITE_ERROR: Final = Answer(
    Reply(451, "4.3.0", "Error: queue file write error"), error=True, kind="resource"
)
"""A message cannot be kept now."""
