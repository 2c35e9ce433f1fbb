"""verify(8): whether addresses take mail, from a cache or by trying (ADDRESS_VERIFICATION_README).

called by: smtpd (VerifyQuery), delivery agents (VerifyUpdate). asks: nobody. writes: the table
address_verify_map. tells: cleanup (a probe: a message that is routed, but never delivered).
needs: mail_owner.

An entry is "status:probed:updated:text", as Postfix writes it: its caches can be taken over. Only
results are kept there; what is being tried is in memory, for a limited time and up to a limit, so
that no client can fill queue or cache with questions. A good result is used until it expires, and
tried again in the background before; a failed attempt does not replace it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from libmail.clients.cleanup import CleanupClient, MailClient
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    AddressStatus,
    CleanupFlag,
    Envelope,
    EnvelopeFlag,
    Recipient,
    VerifyQuery,
    VerifyReply,
    VerifyUpdate,
)
from libmail.log import LOG
from libmail.lookup.verification import probe_sender
from libmail.message.dates import rfc5322_date
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.expiry import LAST_CLEANUP, clean_up
from libmail.tables.registry import open_writable
from libmail.tables.table import TableError, TableOptions, TableUnsupported, WritableTable

__all__ = ["SERVICE", "Entry", "Verifier", "VerifyParams"]

_OK: Final = int(AddressStatus.OK)
_PROBE_LIFE: Final = 1000.0  # seconds after which a probe without a result is sent again
_MAX_ADDRESS: Final = 1000  # characters
_MAX_TEXT: Final = 1000  # characters
_MOST_ENTRIES: Final = 500_000  # results in the cache; further ones are told, but not kept
_LARGEST: Final = 2**62  # of a time in an entry
_IN_PROGRESS: Final = VerifyReply(int(AddressStatus.TODO), "Address verification in progress")
_TOO_MANY: Final = VerifyReply(int(AddressStatus.DEFER), "too many addresses are being verified")


@dataclass(frozen=True, slots=True)
class VerifyParams:
    """Parameters of verify(8). Times in seconds."""

    address_verify_cache_cleanup_interval: float
    address_verify_map: str
    address_verify_negative_cache: bool
    address_verify_negative_expire_time: float
    address_verify_negative_refresh_time: float
    address_verify_pending_request_limit: int
    address_verify_positive_expire_time: float
    address_verify_positive_refresh_time: float
    address_verify_sender: str
    address_verify_sender_ttl: float
    cleanup_service_name: str
    ipc_timeout: float
    mail_name: str
    myhostname: str


class Entry(NamedTuple):
    """A result. status: AddressStatus. updated: when it was found (of the epoch)."""

    status: int
    updated: int
    text: str

    @classmethod
    def parse(cls, value: str | None) -> "Entry | None":
        """The entry that stands in a table; None for what is none, or has no result yet."""
        status, _, rest = (value or "").partition(":")
        _probed, _, rest = rest.partition(":")
        updated, colon, text = rest.partition(":")
        if not (colon and status in ("0", "1", "2") and updated.isascii() and updated.isdigit()):
            return None
        if len(updated) > 19 or not 0 < int(updated) < _LARGEST:
            return None
        return cls(int(status), int(updated), text)

    def value(self) -> str:
        """As it stands in a table; a result waits for no probe."""
        return f"{self.status}:0:{self.updated}:{self.text}"


class Verifier:
    """Answers from the cache, and sends probes. clock: of the epoch."""

    def __init__(
        self,
        params: VerifyParams,
        table: WritableTable,
        cleanup: MailClient,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._params = params
        self._table = table
        self._cleanup = cleanup
        self._clock = clock
        self._pending: dict[str, float] = {}  # addresses with a probe under way, since when
        self._results: dict[str, Entry] = {}  # those that are not kept: told once
        self._tasks: set[asyncio.Task[None]] = set()
        self._entries = 0  # in the table, about

    # answers

    async def query(self, address: str) -> VerifyReply:
        """What is known; what is not, or will not be for long, is tried."""
        if not address or len(address) > _MAX_ADDRESS:
            return VerifyReply(int(AddressStatus.BOUNCE), "no such address")
        now = self._clock()
        entry = self._results.pop(address, None) or await self._known(address)
        if entry is None or self._over(entry, now):
            return _IN_PROGRESS if self._probe(address, now) else _TOO_MANY
        if self._ageing(entry, now):
            self._probe(address, now)
        return VerifyReply(entry.status, entry.text)

    async def _known(self, address: str) -> Entry | None:
        try:
            return Entry.parse(await self._table.lookup(address))
        except TableError as error:
            LOG.seldom(f"{self._params.address_verify_map}", f": lookup: {error}")
            return None

    def _over(self, entry: Entry, now: float) -> bool:
        params = self._params
        good = entry.status == _OK
        life = params.address_verify_positive_expire_time
        return now - entry.updated > (life if good else params.address_verify_negative_expire_time)

    def _ageing(self, entry: Entry, now: float) -> bool:
        params = self._params
        good = entry.status == _OK
        life = params.address_verify_positive_refresh_time
        return now - entry.updated > (life if good else params.address_verify_negative_refresh_time)

    # probes

    def _probe(self, address: str, now: float) -> bool:
        """Have a probe sent, if none is under way; False: there are too many."""
        since = self._pending.get(address)
        if since is not None and now - since <= _PROBE_LIFE:
            return True
        if len(self._pending) >= self._params.address_verify_pending_request_limit:
            self._forget_lost(now)
            if len(self._pending) >= self._params.address_verify_pending_request_limit:
                LOG.seldom("address verification", ": too many requests are pending")
                return False
        self._pending[address] = now
        task = asyncio.get_running_loop().create_task(self._send(address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _forget_lost(self, now: float) -> None:
        """Probes that nobody has told us of; they may be sent again."""
        for address, since in list(self._pending.items()):
            if now - since <= _PROBE_LIFE:
                break  # in the order of time
            del self._pending[address]

    async def _send(self, address: str) -> None:
        """Send a probe: a message without content, which no delivery agent delivers."""
        params, now = self._params, self._clock()
        sender = probe_sender(params.address_verify_sender, params.address_verify_sender_ttl, now)
        envelope = Envelope(sender=sender, arrival=now, flags=int(EnvelopeFlag.PROBE))
        try:
            submission = await self._cleanup.open(int(CleanupFlag.MAP))
            submission.envelope(envelope, [Recipient(address, address)])
            date = rfc5322_date(int(now))
            await submission.write(
                f"Received: by {params.myhostname} ({params.mail_name})\r\n"
                f"\tid {submission.queue_id}; {date}\r\nDate: {date}\r\n".encode()
            )
            result = await submission.finish()
        except (ServiceUnavailable, WireError) as error:
            LOG.warning(f"cannot send a probe: {error}")
            self._pending.pop(address, None)
            return
        if result.status:
            LOG.warning(f"{result.queue_id}: probe was not accepted: {result.reason}")
            await self.update(address, int(AddressStatus.DEFER), "probe could not be sent")

    async def update(self, address: str, status: int, text: str) -> None:
        """The outcome of a probe."""
        waiting = self._pending.pop(address, None) is not None
        now = int(self._clock())
        entry = Entry(status, now, text[:_MAX_TEXT])
        known = await self._known(address)
        good = known is not None and known.status == _OK and not self._over(known, now)
        if good and status != _OK:
            return  # a single failure; there will be another attempt at the next question
        kept = status == _OK or self._params.address_verify_negative_cache
        if not kept or (known is None and self._entries >= _MOST_ENTRIES):
            self._tell_once(address, entry, waiting=waiting)
            return
        self._entries += known is None  # now, as others come before it is written
        try:
            await self._table.update(address, entry.value())
        except TableError as error:
            self._entries -= known is None
            LOG.seldom(f"{self._params.address_verify_map}", f": update: {error}")
            self._tell_once(address, entry, waiting=waiting)

    def _tell_once(self, address: str, entry: Entry, *, waiting: bool) -> None:
        """Keep a result for whoever asks next, and for nobody else."""
        if waiting:
            self._results[address] = entry
            while len(self._results) > self._params.address_verify_pending_request_limit:
                del self._results[next(iter(self._results))]

    # the cache

    async def tidy_for_ever(self) -> None:
        """Drop what has expired, each address_verify_cache_cleanup_interval."""
        interval = self._params.address_verify_cache_cleanup_interval
        with suppress(TableError):  # a shared table is bounded by who has it
            async for _ in self._table.listing():
                self._entries += 1
        while interval:
            with suppress(TableError):
                last = await self._table.lookup(LAST_CLEANUP) or ""
                done = int(last) if last.isascii() and last.isdigit() and len(last) < 20 else 0
                left = min(interval, max(0.0, done + interval - self._clock()))
                await asyncio.sleep(left)
            try:
                await self._tidy()
            except TableUnsupported:
                return  # who has the table looks after it
            except TableError as error:
                LOG.warning(f"cache {self._table.spec} cleanup: {error}")
                await asyncio.sleep(interval)

    async def _tidy(self) -> None:
        """Raises TableError."""
        now = self._clock()

        def stale(_: str, value: str) -> bool:
            entry = Entry.parse(value)
            return entry is None or self._over(entry, now)

        cleanup = await clean_up(self._table, stale, now)
        self._entries = cleanup.retained
        LOG.event(cleanup)

    async def serve(self, connection: Connection) -> None:
        """Exchanges on one connection."""
        while True:
            match await connection.receive():
                case VerifyQuery(address):
                    connection.send(await self.query(address))
                case VerifyUpdate(address, status, text):
                    if status not in (0, 1, 2):
                        raise WireError(f"bad address status: {status}")
                    await self.update(address, status, text)
                    connection.send(VerifyReply(status, ""))
                case other:
                    raise WireError(f"unexpected {type(other).__name__}")


@dataclass(frozen=True, slots=True)
class _Prepared:
    params: VerifyParams
    table: WritableTable


def _prepare(startup: Startup) -> _Prepared:
    """Read the parameters and open the cache; without one it is in memory."""
    params = startup.config.load(VerifyParams)
    options = replace(TableOptions.of(startup.config), fold=False, strict=True)
    if not params.address_verify_map:
        return _Prepared(params, InternalTable("internal:verify", options))
    return _Prepared(params, open_writable(params.address_verify_map, options))


async def _start(prepared: _Prepared, runtime: Runtime) -> Handlers:
    params = prepared.params
    pool = ServicePool(f"public/{params.cleanup_service_name}", timeout=params.ipc_timeout)
    verifier = Verifier(params, prepared.table, CleanupClient(pool, timeout=params.ipc_timeout))
    runtime.spawn(verifier.tidy_for_ever())
    return Handlers(stream=exchanges(runtime, verifier.serve, network=True))


SERVICE: Final = Service("verify", _prepare, _start, permanent=True)
