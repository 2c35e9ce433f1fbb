"""tlsmgr(8): what the TLS of all processes shares: keys of session tickets, sessions, traces.

called by: smtpd, smtp, lmtp, tlsproxy (libmail/clients/tlsmgr.py), master (wake-up). asks: nobody.
writes: the tables of *_tls_session_cache_database, tlstrace/. tells: nobody. needs: mail_owner.

Nobody waits for it on the way of a message: processes have the next key of tickets long before it
is needed, and a session that is not found in time costs a full handshake. Keys are in memory only:
after a restart, tickets of before are as good as none.

Unlike Postfix's it gives no random numbers to others: the kernel does.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Final

from libmail.config import Config
from libmail.ipc.codec import WireError
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
from libmail.log import LOG, Fatal, printable
from libmail.service.connection import Connection, Trigger
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.registry import open_writable
from libmail.tables.table import TableConfigError, TableError, TableOptions
from libmail.tls.session_cache import SessionCache
from libmail.tls.settings import session_seconds
from libmail.tls.tickets import TicketKey, TicketRotation
from libmail.tls.traces import TraceFiles, TraceRate

__all__ = ["SERVICE", "TlsManager", "TlsmgrParams"]


@dataclass(frozen=True, slots=True)
class TlsmgrParams:
    """Parameters of tlsmgr(8). Times in seconds."""

    lmtp_tls_session_cache_database: str
    lmtp_tls_session_cache_timeout: float
    smtp_tls_session_cache_database: str
    smtp_tls_session_cache_timeout: float
    smtpd_tls_session_cache_database: str
    smtpd_tls_session_cache_timeout: float
    tls_trace_rate_limit: int

    def caches(self) -> tuple[tuple[str, str, float], ...]:
        """(client, table, seconds) of each cache."""
        return (
            ("smtpd", self.smtpd_tls_session_cache_database, self.smtpd_tls_session_cache_timeout),
            ("smtp", self.smtp_tls_session_cache_database, self.smtp_tls_session_cache_timeout),
            ("lmtp", self.lmtp_tls_session_cache_database, self.lmtp_tls_session_cache_timeout),
        )


class TlsManager:
    """Answers requests. tickets: None where no sessions are resumed."""

    def __init__(
        self,
        tickets: TicketRotation | None,
        caches: dict[str, SessionCache],
        traces: TraceFiles,
    ) -> None:
        self._tickets = tickets
        self._caches = caches
        self._traces = traces

    async def serve(self, connection: Connection) -> None:
        """Exchanges on one connection."""
        while True:
            request = await connection.receive()
            match request:
                case TicketKeysRequest():
                    connection.send(TicketKeysReply(self.keys(time.time())))
                case SessionLookup(cache, key):
                    connection.send(SessionReply(await self.find(cache, key)))
                case SessionStore(cache, key, session):
                    await self.store(cache, key, session)
                case SessionRemove(cache, key):
                    await self.remove(cache, key)
                case TlsTrace():
                    self.trace(request)
                case Trigger():
                    pass  # a wake-up: the process is there, and that is what it is for
                case _:
                    raise WireError(f"unexpected {type(request).__name__}")

    def keys(self, now: float) -> tuple[TicketKeyRecord, ...]:
        """The keys of tickets, for the wire."""
        keys = self._tickets.keys(now) if self._tickets is not None else ()
        return tuple(_record(key) for key in keys)

    async def find(self, name: str, key: str) -> str:
        """A session; "" if there is none, or the table does not answer."""
        try:
            cache = self._cache(name)
            return await cache.lookup(key) if cache is not None else ""
        except TableError as error:
            LOG.seldom(f"{name} TLS session cache", f": lookup: {error}")
            return ""

    async def store(self, name: str, key: str, session: str) -> None:
        """Keep a session, if there is a cache for it."""
        try:
            cache = self._cache(name)
            if cache is not None and not await cache.store(key, session):
                raise WireError(f"no TLS session: {printable(key[:80])}")
        except TableError as error:
            LOG.seldom(f"{name} TLS session cache", f": update: {error}")

    async def remove(self, name: str, key: str) -> None:
        """Forget a session."""
        try:
            cache = self._cache(name)
            if cache is not None:
                await cache.remove(key)
        except TableError as error:
            LOG.seldom(f"{name} TLS session cache", f": delete: {error}")

    def trace(self, trace: TlsTrace) -> None:
        """Keep the trace of a handshake. Raises WireError."""
        try:
            self._traces.write(*trace)
        except ValueError as error:
            raise WireError(str(error)) from None
        except OSError as error:
            LOG.seldom("TLS traces", f": {error}")

    def _cache(self, name: str) -> SessionCache | None:
        """The cache, None where none is configured. Raises WireError."""
        if name not in ("smtpd", "smtp", "lmtp"):
            raise WireError(f'bogus cache type "{printable(name[:80])}"')
        return self._caches.get(name)

    def names(self) -> tuple[str, ...]:
        """The caches that there are."""
        return tuple(self._caches)

    async def tidy_for_ever(self, name: str) -> None:
        """Tidy a cache up now and once in its lifetime."""
        cache = self._caches[name]
        while True:
            try:
                gone = await cache.tidy()
                LOG.debug(f"{name} TLS session cache: {gone} entries have expired")
            except TableError as error:
                LOG.warning(f"{name} TLS session cache: tidy: {error}")
            await asyncio.sleep(cache.lifetime)


def _record(key: TicketKey) -> TicketKeyRecord:
    parts = (key.name.hex(), key.cipher_key.hex(), key.mac_key.hex())
    return TicketKeyRecord(*parts, key.issues_from, key.issues_until, key.opens_until)


def _prepare(startup: Startup) -> TlsManager:
    params = startup.config.load(TlsmgrParams)
    period = session_seconds(params.smtpd_tls_session_cache_timeout)
    tickets = TicketRotation(period) if period else None
    traces = TraceFiles(TraceRate(params.tls_trace_rate_limit))
    return TlsManager(tickets, _opened(params, startup.config), traces)


def _opened(params: TlsmgrParams, config: Config) -> dict[str, SessionCache]:
    """The caches that are configured. One that cannot be opened is done without."""
    options = replace(TableOptions.of(config), strict=True, fold=False)
    found: dict[str, SessionCache] = {}
    users: dict[str, str] = {}
    for client, spec, timeout in params.caches():
        lifetime = session_seconds(timeout)
        if not spec or not lifetime:
            continue
        parameter = f"{client}_tls_session_cache_database"
        if spec in users:
            raise Fatal(
                f"do not use the same TLS cache file {spec} for {users[spec]} and {parameter}"
            )
        users[spec] = parameter
        try:
            found[client] = SessionCache(open_writable(spec, options), lifetime, time.time)
        except TableConfigError as error:
            LOG.warning(f"{parameter}: {error}; TLS sessions are not kept")
    return found


async def _start(manager: TlsManager, runtime: Runtime) -> Handlers:
    for name in manager.names():
        runtime.spawn(manager.tidy_for_ever(name))
    return Handlers(stream=exchanges(runtime, manager.serve, network=True))


SERVICE: Final = Service("tlsmgr", _prepare, _start, permanent=True)
