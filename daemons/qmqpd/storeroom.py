"""Memory for messages: content comes before the recipients, and cleanup(8) wants it after them.

A client says how large its message is before it sends it. It is not listened to before there is
room for all of it, so that those who have room get on, and nobody waits for somebody who waits.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Storeroom"]


class Storeroom:
    """Room for so many octets, given in the order in which it is asked for."""

    def __init__(self, octets: int) -> None:
        self._size = octets
        self._free = octets
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def room(self, octets: int) -> AsyncIterator[None]:
        """Wait for room for a message; one that is larger than the room has all of it."""
        octets = min(octets, self._size)
        async with self._turn:
            while self._free < octets:
                self._freed.clear()
                await self._freed.wait()
            self._free -= octets
        try:
            yield
        finally:
            self._free += octets
            self._freed.set()
