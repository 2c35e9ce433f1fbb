"""What becomes of a recipient.

The relay "local" is replaced by the name of the service, of which there may be several.
"""

from typing import Final

from libmail.agents.delivery import Bounced, Deferred, Sent
from libmail.log import LOG

__all__ = ["bounced", "deferred", "deliverable", "delivered", "misconfigured"]

_RELAY: Final = "local"


def delivered(reason: str) -> Sent:
    """It has what was sent to it."""
    return Sent("2.0.0", reason, _RELAY, "delivered")


def deliverable(reason: str) -> Sent:
    """It could have it, if this were more than a question."""
    return Sent("2.0.0", reason, _RELAY, "deliverable")


def deferred(reason: str, dsn: str = "4.3.0") -> Deferred:
    """To be tried again."""
    return Deferred(dsn, reason, _RELAY)


def bounced(dsn: str, reason: str) -> Bounced:
    """Failed for good."""
    return Bounced(dsn, reason, _RELAY)


def misconfigured(problem: str) -> Deferred:
    """To be tried again when somebody has read of the problem in the log."""
    LOG.warning(problem)
    return deferred("mail system configuration error", "4.3.5")
