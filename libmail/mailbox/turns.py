"""Deliveries of one process to the same mailbox take turns, rather than find it locked.

To find out again and again whether a lock has gone costs time that the mailbox is not used in, and
a thread for each that waits.
"""

import asyncio
from collections import deque

__all__ = ["Turns"]


class Turns:
    """Owned by one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by mailbox in use

    async def take(self, mailbox: str) -> None:
        """Wait until nobody else has it."""
        waiting = self._waiting.get(mailbox)
        if waiting is None:
            self._waiting[mailbox] = deque()
            return
        turn = self._loop.create_future()
        waiting.append(turn)
        await turn

    def leave(self, mailbox: str) -> None:
        """Let the next one have it."""
        waiting = self._waiting[mailbox]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():  # the task that waits was not cancelled
                turn.set_result(None)
                return
        del self._waiting[mailbox]
