"""Answers questions about addresses, and sends the probes that find out (see daemons.verify)."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final

from daemons.verify.entry import Entry
from daemons.verify.results import Results
from libmail.clients.cleanup import MailClient
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
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServiceUnavailable
from libmail.tables.table import WritableTable

__all__ = ["Verifier", "VerifyParams"]

_OK: Final = int(AddressStatus.OK)
_PROBE_LIFE: Final = 1000.0  # seconds after which a probe without a result is sent again
_MAX_ADDRESS: Final = 1000  # characters
_MAX_TEXT: Final = 1000  # characters
_MOST_QUESTIONS: Final = 20_000  # under way
_LONGEST_WAIT: Final = 3600.0
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


@dataclass(slots=True, eq=False)
class _Probe:
    """One that is under way, since when. known: what was known before. waiting: those who asked;
    they get None if it could not be sent."""

    since: float
    known: Entry | None
    waiting: list["asyncio.Future[Entry | None]"] = field(default_factory=list)


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
        self._cleanup = cleanup
        self._clock = clock
        self._probes: dict[str, _Probe] = {}  # by address, in the order of time
        self._tasks: set[asyncio.Task[None]] = set()
        self.results = Results(table, self._over, params.address_verify_pending_request_limit)

    # answers

    async def query(self, address: str, wait: float = 0.0) -> VerifyReply:
        """What is known; what is not, or will not be for long, is tried.

        wait: seconds in which the outcome is waited for.
        """
        if not address or len(address) > _MAX_ADDRESS:
            return VerifyReply(int(AddressStatus.BOUNCE), "no such address")
        entry, now = await self.results.find(address), self._clock()
        if entry is None or self._over(entry, now):
            probe = self._probe(address, entry, now)
            if probe is None:
                return _TOO_MANY
            entry = await _outcome(probe, wait) if wait > 0 else None
            return _IN_PROGRESS if entry is None else VerifyReply(entry.status, entry.text)
        if self._ageing(entry, now):
            self._probe(address, entry, now)
        return VerifyReply(entry.status, entry.text)

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

    def _probe(self, address: str, known: Entry | None, now: float) -> _Probe | None:
        """Have a probe sent, if none is under way; None: there are too many."""
        probe = self._probes.get(address)
        if probe is not None and now - probe.since <= _PROBE_LIFE:
            return probe
        if len(self._probes) >= self._params.address_verify_pending_request_limit:
            self._forget_lost(now)
            if len(self._probes) >= self._params.address_verify_pending_request_limit:
                LOG.seldom("address verification", ": too many requests are pending")
                return None
        self._end_probe(address, None)
        probe = self._probes[address] = _Probe(now, known)
        self._spawn(self._send(address))
        return probe

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # a bug ends the process

    def _forget_lost(self, now: float) -> None:
        """Probes that nobody has told us of; they may be sent again."""
        for address, probe in list(self._probes.items()):
            if now - probe.since <= _PROBE_LIFE:
                break  # in the order of time
            self._end_probe(address, None)

    def _end_probe(self, address: str, entry: Entry | None) -> _Probe | None:
        """The outcome of a probe, None for none; tells those that wait."""
        probe = self._probes.pop(address, None)
        if probe is not None:
            for future in probe.waiting:
                if not future.done():
                    future.set_result(entry)
        return probe

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
            self._end_probe(address, None)
            return
        if result.status:
            LOG.warning(f"{result.queue_id}: probe was not accepted: {result.reason}")
            await self.update(address, int(AddressStatus.DEFER), "probe could not be sent")

    async def update(self, address: str, status: int, text: str) -> None:
        """The outcome of a probe."""
        now = int(self._clock())
        entry = Entry(status, now, text[:_MAX_TEXT])
        probe = self._probes.get(address)
        known = await self.results.kept(address) if probe is None else probe.known
        good = known is not None and known.status == _OK and not self._over(known, now)
        if good and status != _OK:
            self._end_probe(address, known)
            return  # a single failure; there will be another attempt at the next question
        kept = status == _OK or self._params.address_verify_negative_cache
        kept = kept and await self.results.keep(address, entry, new=known is None)
        told = probe is not None and bool(probe.waiting)
        self._end_probe(address, entry)
        if probe is not None and not kept and not told:
            self.results.tell_once(address, entry)

    async def tidy_for_ever(self) -> None:
        """Drop what has expired, each address_verify_cache_cleanup_interval."""
        interval = self._params.address_verify_cache_cleanup_interval
        await self.results.tidy_for_ever(interval, self._clock)

    # connections

    async def serve(self, connection: Connection) -> None:
        """Exchanges on one connection: questions are answered in any order."""
        while True:
            match await connection.receive():
                case VerifyQuery() as query:
                    if len(self._tasks) < _MOST_QUESTIONS:
                        self._spawn(self._answer(connection, query))
                    else:
                        connection.send(_TOO_MANY._replace(number=query.number))
                case VerifyUpdate(address, status, text):
                    if status not in (0, 1, 2):
                        raise WireError(f"bad address status: {status}")
                    await self.update(address, status, text)
                    connection.send(VerifyReply(status, ""))
                case other:
                    raise WireError(f"unexpected {type(other).__name__}")

    async def _answer(self, connection: Connection, query: VerifyQuery) -> None:
        reply = await self.query(query.address, min(query.wait, _LONGEST_WAIT))
        try:
            connection.send(reply._replace(number=query.number))
        except ConnectionLost:
            pass  # nobody is there any more


async def _outcome(probe: _Probe, wait: float) -> Entry | None:
    """The outcome of a probe, None if it takes longer."""
    future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    probe.waiting.append(future)
    try:
        async with asyncio.timeout(wait):
            return await future
    except TimeoutError:
        return None
    finally:
        probe.waiting.remove(future)
