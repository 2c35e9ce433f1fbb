"""The client of tlsmgr(8): keys of session tickets, the cache of TLS sessions, traces.

Called by: smtpd, smtp, lmtp, tlsproxy. Asks: `private/tlsmgr`. Without it TLS works, but every
handshake is a full one. Only the lookup of a session waits for tlsmgr, and not for long.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from libmail.ipc.messages import (
    SessionLookup,
    SessionRemove,
    SessionReply,
    SessionStore,
    TicketKeyRecord,
    TicketKeysReply,
    TicketKeysRequest,
    TlsTrace,
)
from libmail.log import LOG
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.tls.tickets import TicketKey, TicketKeys

__all__ = ["Spawn", "TlsmgrClient", "TlsmgrClientParams"]

_PATIENCE: Final = 1.0  # seconds to wait for a session; a full handshake takes less
_KEYS_PATIENCE: Final = 10.0
_RETRY: Final = (1.0, 5.0, 30.0)  # seconds between requests for keys that fail, the last for ever
_SOONEST: Final = 1.0
_MOST_PENDING: Final = 200  # sessions on their way to be kept

Spawn = Callable[[Coroutine[object, object, object]], object]


@dataclass(frozen=True, slots=True)
class TlsmgrClientParams:
    """The parameters of programs that use tlsmgr(8)."""

    tlsmgr_service_name: str


class TlsmgrClient:
    """spawn: runs a task of the process (Runtime.spawn). cache: "smtpd", "smtp" or "lmtp".

    tickets: the place for keys; None for one of its own.
    """

    def __init__(
        self,
        params: TlsmgrClientParams,
        cache: str,
        spawn: Spawn,
        clock: Callable[[], float] = time.time,
        tickets: TicketKeys | None = None,
    ) -> None:
        path = f"private/{params.tlsmgr_service_name}"
        self.tickets = TicketKeys(clock) if tickets is None else tickets
        self._cache = cache
        self._spawn = spawn
        self._clock = clock
        self._pool = ServicePool(path, timeout=_KEYS_PATIENCE, wait=False)
        self._hasty = ServicePool(path, timeout=_PATIENCE, wait=False)
        self._pending = 0

    def keep_keys(self) -> None:
        """Fetch the keys of tickets, and renew them from now on. For servers, at their start."""
        self._spawn(self._keep_keys())

    async def _keep_keys(self) -> None:
        failures = 0
        while True:
            try:
                keys = await self._fetched()
            except ServiceUnavailable as error:
                if failures == 0:
                    LOG.warning(f"no keys for TLS session tickets: {error}")
                pause = _RETRY[min(failures, len(_RETRY) - 1)]
                failures += 1
            else:
                if not keys:
                    return  # tickets are not wanted
                self.tickets.replace(keys)
                pause = self._until_next(keys)
                failures = 0
            await asyncio.sleep(pause)

    async def _fetched(self) -> tuple[TicketKey, ...]:
        reply = await self._pool.call(TicketKeysRequest(), TicketKeysReply)
        try:
            return tuple(_key(record) for record in reply.keys)
        except ValueError as error:
            raise ServiceUnavailable(f"{self._pool.path}: {error}") from None

    def _until_next(self, keys: Sequence[TicketKey]) -> float:
        """Seconds until the newest key comes into use, when tlsmgr has made the next one."""
        return max(_SOONEST, max(key.issues_from for key in keys) - self._clock())

    async def session(self, key: str) -> bytes:
        """A cached session; b"" if there is none, or no answer in time."""
        try:
            reply = await self._hasty.call(SessionLookup(self._cache, key), SessionReply)
            return base64.b64decode(reply.session, validate=True)
        except (ServiceUnavailable, binascii.Error) as error:
            LOG.debug(f"{self._cache} TLS session cache: {error}")
            return b""

    def keep(self, key: str, session: bytes) -> None:
        """Store a session in the cache, in the background."""
        self._tell(SessionStore(self._cache, key, base64.b64encode(session).decode()))

    def remove(self, key: str) -> None:
        """Remove a session from the cache, in the background."""
        self._tell(SessionRemove(self._cache, key))

    def trace(self, program: str, address: str, text: str) -> None:
        """Have the trace of a handshake written into a file, in the background."""
        self._tell(TlsTrace(program, address, text))

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pool.close()
        self._hasty.close()

    def _tell(self, message: object) -> None:
        if self._pending < _MOST_PENDING:  # more are not worth the memory
            self._pending += 1
            self._spawn(self._told(message))

    async def _told(self, message: object) -> None:
        try:
            await self._hasty.notify(message)
        except ServiceUnavailable as error:
            LOG.debug(f"{self._cache} TLS sessions and traces: {error}")
        finally:
            self._pending -= 1


def _key(record: TicketKeyRecord) -> TicketKey:
    """Raises ValueError for an invalid record."""
    name, cipher, mac = map(bytes.fromhex, (record.name, record.cipher_key, record.mac_key))
    return TicketKey(name, cipher, mac, record.issues_from, record.issues_until, record.opens_until)
