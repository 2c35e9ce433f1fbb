"""Sessions that tlsmgr(8) keeps in a table: bounded in number, in size, and in time.

An entry is "TIME SESSION", TIME in seconds since the epoch, SESSION in base64. What it means is no
business of the cache. The table holds secrets, so its file is for mail_owner alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from libmail.tables.expiry import drop
from libmail.tables.table import WritableTable

__all__ = ["SessionCache"]

_MOST: Final = 50_000  # entries, after tidying up
_LONGEST: Final = 1 << 16  # characters of a session
_KEY: Final = re.compile(r"[!-~]{1,300}")
_SESSION: Final = re.compile(r"[A-Za-z0-9+/=]+")


class SessionCache:
    """One of the caches. lifetime: seconds. Whatever its table raises passes through."""

    def __init__(self, table: WritableTable, lifetime: float, clock: Callable[[], float]) -> None:
        self.lifetime = lifetime
        self._table = table
        self._clock = clock
        self._stored = 0  # entries since it was tidied up

    async def lookup(self, key: str) -> str:
        """The session; "" if there is none. Raises TableError."""
        entry = await self._table.lookup(key) if _KEY.fullmatch(key) else None
        if entry is None:
            return ""
        stored, session = _parts(entry)
        if self._is_old(stored):
            await self._table.delete(key)
            return ""
        return session

    async def store(self, key: str, session: str) -> bool:
        """Keep a session; False for one that cannot be one. Raises TableError."""
        if len(session) > _LONGEST or not _KEY.fullmatch(key) or not _SESSION.fullmatch(session):
            return False
        if self._stored >= _MOST:
            return True  # it will be forgotten at once; a client can make them faster than time
        self._stored += 1
        await self._table.update(key, f"{int(self._clock())} {session}")
        return True

    async def remove(self, key: str) -> None:
        """Forget a session. Raises TableError."""
        if _KEY.fullmatch(key):
            await self._table.delete(key)

    async def tidy(self) -> int:
        """Remove what is too old, then the oldest of too many; how many went. Raises TableError."""
        times = [(_parts(entry)[0], key) async for key, entry in self._table.listing()]
        times.sort()
        surplus = len(times) - _MOST
        gone = [
            key for at, (stored, key) in enumerate(times) if at < surplus or self._is_old(stored)
        ]
        known = {key: stored for stored, key in times}
        await drop(self._table, gone, lambda key, entry: _parts(entry)[0] == known.get(key))
        self._stored = 0
        return len(gone)

    def _is_old(self, stored: int) -> bool:
        """Also what is from the future, after the clock was set."""
        return not 0 <= int(self._clock()) - stored < self.lifetime


def _parts(entry: str) -> tuple[int, str]:
    """When an entry was made, and the session; 0 where it is none of ours."""
    stored, _, session = entry.partition(" ")
    return (int(stored) if stored.isascii() and stored.isdecimal() else 0), session
