"""The connection cache: idle sessions for the next message to the same destination or server."""

import asyncio
import time
from collections import defaultdict
from typing import Final

from daemons.smtp.session import Session, SessionKey
from daemons.smtp.settings import SmtpParams

__all__ = ["SessionCache"]

_GRAIN: Final = 0.05  # seconds between checks for expired sessions, at least


class SessionCache:
    """At most `_MOST` sessions, each for `smtp_connection_cache_time_limit` seconds."""

    _MOST: Final = 1000

    def __init__(self, params: SmtpParams) -> None:
        self._life = params.smtp_connection_cache_time_limit
        self._age = params.smtp_connection_reuse_time_limit
        self._uses = params.smtp_connection_reuse_count_limit
        self._by_key: defaultdict[SessionKey, list[Session]] = defaultdict(list)
        # Sessions with their expiry times; in that order, as all live equally long.
        self._kept: dict[Session, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._kept)

    def fit(self, session: Session) -> bool:
        """Whether the session may serve another message after the current one."""
        if self._uses and session.uses >= self._uses:
            return False
        return time.monotonic() - session.born < self._age and len(self._kept) < self._MOST

    def put(self, session: Session, keys: tuple[SessionKey, ...]) -> None:
        """Keep a session. keys: the destination, and the server's address."""
        session.keys = keys
        self._kept[session] = time.monotonic() + self._life
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._life, self._sweep)
        for key in keys:
            self._by_key[key].append(session)

    def take(self, key: SessionKey) -> Session | None:
        """Take out the session that was put last under this key and is still open, or None."""
        while sessions := self._by_key.get(key):
            session = sessions[-1]
            self._forget(session)
            if session.wire.quiet:
                if session.keys[0] != key:
                    session.keys = ()  # it may be another destination's from now on
                return session
            session.wire.close()
        return None

    def _forget(self, session: Session) -> None:
        del self._kept[session]
        for key in session.keys:
            sessions = self._by_key[key]
            if len(sessions) > 1:
                sessions.remove(session)
            else:
                del self._by_key[key]

    def _sweep(self) -> None:
        """Close expired sessions, and set the timer for the next."""
        now = time.monotonic()
        self._timer = None
        for session, until in list(self._kept.items()):
            if until > now:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(max(until - now, _GRAIN), self._sweep)
                return
            self._expire(session)

    def _expire(self, session: Session) -> None:
        self._forget(session)
        session.wire.send(b"QUIT\r\n")
        session.wire.close()

    def close(self) -> None:
        """Say goodbye on all sessions."""
        for session in list(self._kept):
            self._expire(session)
