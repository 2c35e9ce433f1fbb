"""Users at a socket that anyone may connect to: none may take the place of all others.

A process has room for so many clients. A user gets some of it, and has to say what he wants soon.
The mail system itself and root are not counted.
"""

from collections import Counter
from typing import Final

from libmail.log import LOG

__all__ = ["FIRST_MESSAGE", "Visitors"]

FIRST_MESSAGE: Final = 10.0  # seconds for a user to begin
_MOST: Final = 100  # connections of one user at a time


class Visitors:
    """The connections of users to one service."""

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
