"""Limits for users at a socket that anyone may connect to: no user may keep all others out.

A process serves a limited number of clients. Each user gets at most _MOST of these places, and has
to send a first message soon. The mail system itself and root are not limited.
"""

from collections import Counter
from typing import Final

from libmail.log import LOG

__all__ = ["FIRST_MESSAGE", "UserConnections"]

FIRST_MESSAGE: Final = 10.0  # seconds until a user's first message
_MOST: Final = 100  # connections of one user at a time


class UserConnections:
    """Counts the connections that each user has to one service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._connections = Counter[int]()

    def admit(self, uid: int) -> bool:
        """Count another connection; False, and none is counted, where there are too many."""
        if self._connections[uid] >= _MOST:
            LOG.seldom(f"{self._service}: too many connections of one user", f": uid={uid}")
            return False
        self._connections[uid] += 1
        return True

    def leave(self, uid: int) -> None:
        """A connection that was counted has ended."""
        self._connections[uid] -= 1
        if not self._connections[uid]:
            del self._connections[uid]
