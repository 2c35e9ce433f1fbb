"""smtp_sasl_auth_cache_name: logins that a server has refused, not to try them again and again.

An entry is "time;proof;status;reply" under "host;user". The proof tells whether the password is
still the same, and costs who steals the table too much to find the password with.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from libmail.log import LOG
from libmail.tables.table import TableError, WritableTable

__all__ = ["Refusal", "Refusals"]

_ROUNDS: Final = 20_000  # some milliseconds, and only where a login was refused before
_LONGEST: Final = 500  # characters of a reply that are kept
_LARGEST: Final = 19  # digits of a time


class Refusal(NamedTuple):
    """What the server said. dsn: RFC 3463 status."""

    dsn: str
    text: str


class Refusals:
    """life: smtp_sasl_auth_cache_time, in seconds. clock: of the epoch.

    A table that fails is as good as none; that is logged.
    """

    def __init__(
        self, table: WritableTable, life: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._table = table
        self._life = life
        self._clock = clock

    async def find(self, host: str, user: str, password: str) -> Refusal | None:
        """What the server said to this login, if that is not too long ago."""
        key = f"{host};{user}"
        try:
            value = await self._table.lookup(key)
            if value is None:
                return None
            since, _, rest = value.partition(";")
            proof, _, rest = rest.partition(";")
            if self._lives(since) and hmac.compare_digest(proof, _proof(key, password)):
                dsn, _, text = rest.partition(";")
                return Refusal(dsn, text)
            await self._table.delete(key)
        except TableError as error:
            LOG.warning(str(error))
        return None

    async def note(self, host: str, user: str, password: str, refusal: Refusal) -> None:
        """The server has refused this login."""
        key, now = f"{host};{user}", int(self._clock())
        value = f"{now};{_proof(key, password)};{refusal.dsn};{refusal.text[:_LONGEST]}"
        try:
            await self._table.update(key, value)
        except TableError as error:
            LOG.warning(str(error))

    def _lives(self, since: str) -> bool:
        good = since.isascii() and since.isdigit() and len(since) <= _LARGEST
        return good and self._clock() - int(since) <= self._life


def _proof(key: str, password: str) -> str:
    salt, secret = (text.encode("utf-8", "surrogateescape") for text in (key, password))
    return hashlib.pbkdf2_hmac("sha256", secret, salt, _ROUNDS).hex()
