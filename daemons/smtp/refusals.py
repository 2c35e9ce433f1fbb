"""smtp_sasl_auth_cache_name: a cache of logins that servers refused, so as not to repeat them.

An entry is "time;proof;status;reply" under "host;user". The proof is a slow hash of the password:
it tells whether that has changed since, and is of little use to a thief of the table.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from libmail.log import LOG
from libmail.tables.table import TableError, WritableTable

__all__ = ["Refusal", "RefusalCache"]

_ROUNDS: Final = 20_000  # some milliseconds, and only where a login was refused before
_LONGEST: Final = 500  # characters of a reply that are kept
_LARGEST: Final = 19  # digits of a time


class Refusal(NamedTuple):
    """The reply that refused a login. dsn: RFC 3463 status."""

    dsn: str
    text: str


class RefusalCache:
    """The cache over one table. A table that fails is logged, and treated as empty."""

    def __init__(
        self, table: WritableTable, life: float, clock: Callable[[], float] = time.time
    ) -> None:
        """life: smtp_sasl_auth_cache_time, seconds. clock: seconds since the epoch."""
        self._table = table
        self._life = life
        self._clock = clock

    async def find(self, host: str, user: str, password: str) -> Refusal | None:
        """The cached refusal of a login, None if there is none or it has expired."""
        key = f"{host};{user}"
        try:
            value = await self._table.lookup(key)
            if value is None:
                return None
            since, _, rest = value.partition(";")
            proof, _, rest = rest.partition(";")
            if self._lives(since) and hmac.compare_digest(proof, await _proof(key, password)):
                dsn, _, text = rest.partition(";")
                return Refusal(dsn, text)
            await self._table.delete(key)
        except TableError as error:
            LOG.warning(str(error))
        return None

    async def note(self, host: str, user: str, password: str, refusal: Refusal) -> None:
        """Store the refusal of a login."""
        key, now = f"{host};{user}", int(self._clock())
        value = f"{now};{await _proof(key, password)};{refusal.dsn};{refusal.text[:_LONGEST]}"
        try:
            await self._table.update(key, value)
        except TableError as error:
            LOG.warning(str(error))

    def _lives(self, since: str) -> bool:
        good = since.isascii() and since.isdigit() and len(since) <= _LARGEST
        return good and self._clock() - int(since) <= self._life


async def _proof(key: str, password: str) -> str:
    """Made in a thread, so that other deliveries go on."""
    salt, secret = (text.encode("utf-8", "surrogateescape") for text in (key, password))
    proof = await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", secret, salt, _ROUNDS)
    return proof.hex()
