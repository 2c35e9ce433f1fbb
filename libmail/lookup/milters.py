"""What happens to mail that Milters should see, while there are none: milter_default_action.

Postfix does the same when a Milter cannot be reached.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from libmail.smtp.reply import Reply

__all__ = ["HOLD", "PASS", "Unfiltered", "unfiltered"]


class Unfiltered(NamedTuple):
    """reply: the refusal, or None. hold: take the mail and put it on hold."""

    reply: Reply | None
    hold: bool = False


PASS: Final = Unfiltered(None)
HOLD: Final = Unfiltered(None, hold=True)
_ACTIONS: Final = {
    "accept": PASS,
    "quarantine": HOLD,
    "reject": Unfiltered(Reply(550, "5.5.0", "Service unavailable")),
    "shutdown": Unfiltered(Reply(421, "4.7.0", "Server closing connection")),
    "tempfail": Unfiltered(Reply(451, "4.7.1", "Service unavailable - try again later")),
}
_UNKNOWN: Final = Unfiltered(Reply(451, "4.3.5", "Server configuration problem - try again later"))


def unfiltered(milters: Sequence[str], default_action: str) -> Unfiltered:
    """What to do with mail that these Milters (elements of smtpd_milters) should have seen.

    Each may have an action of its own, `{ inet:host:port, default_action = accept }`. The first
    that does not let mail pass decides.
    """
    for milter in milters:
        decision = _ACTIONS.get(_action(milter, default_action).lower(), _UNKNOWN)
        if decision is not PASS:
            return decision
    return PASS


def _action(milter: str, default: str) -> str:
    action = default
    if milter.startswith("{"):
        for setting in milter.removeprefix("{").removesuffix("}").split(",")[1:]:
            name, _, value = setting.partition("=")
            if name.strip() == "default_action":
                action = value.strip()
    return action
