"""The queue manager's active queue: messages in, deliveries out, the end of each message."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from daemons.qmgr.agents import AgentPool, AgentTimes, Dispatch
from daemons.qmgr.clog import ClogWarnings
from daemons.qmgr.closing import Closing
from daemons.qmgr.message import Message
from daemons.qmgr.reports import log_status, record_deferred
from daemons.qmgr.routing import (
    RESOLVER_FAILURE,
    Discard,
    RoutingRules,
    needs_resolver,
    route,
)
from daemons.qmgr.scans import Found, QueueScan
from daemons.qmgr.scheduler import Entry, Scheduler, Transport
from daemons.qmgr.store import Read, StillDelivering, Store
from libmail.ipc.messages import (
    CODEC,
    DeliverFlag,
    DeliverReply,
    DeliverRequest,
    DsnNotify,
    EnvelopeFlag,
    Nexthop,
    QueueId,
    Recipient,
    ResolveReply,
    TraceFlag,
)
from libmail.ipc.messages import Transport as TransportName
from libmail.log import LOG
from libmail.log.events import QueueActive, QueueRemoved
from libmail.message.verp import verp_sender
from libmail.queue.file import FORCED_EXPIRY, QueueFileCorrupt
from libmail.service.pool import ServiceUnavailable

_FILES_A_TURN: Final = 200  # looked at in one turn of the event loop
_MESSAGES_A_TURN: Final = 32  # taken in one turn
_STOP_LOOK: Final = 0.02  # seconds between looks whether deliveries have ended
_EXPANDED: Final = EnvelopeFlag.EXPANDED.value
_KEEP: Final = DeliverFlag.KEEP.value  # plain numbers: the operators of IntFlag are slow
_SUCCESS: Final = DsnNotify.SUCCESS.value
_SUSPENDED: Final = "delivery temporarily suspended: "


class Resolver(Protocol):
    """See `libmail.clients.rewrite.RewriteClient`."""

    def known_route(self, sender: str, address: str) -> ResolveReply | None:
        """The answer, if it is known."""

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """The answer. Raises ServiceUnavailable."""

    async def prefetch(self, sender: str, addresses: Iterable[str]) -> None:
        """Have the answers for many, if that can be. Raises ServiceUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerRules:
    """Parameters of the active queue.

    active_limit, recipient_limit, recipient_minimum: qmgr_message_*. confirm_cleared:
    confirm_delay_cleared. feedback_debug: destination_concurrency_feedback_debug. retry_delay:
    minimal_backoff_time, after which a message is looked at again that could not be read.
    """

    active_limit: int
    recipient_limit: int
    recipient_minimum: int
    confirm_cleared: bool
    feedback_debug: bool
    retry_delay: float
    agent_times: AgentTimes


class QueueManager:
    """Owns the active queue. clock: of the epoch; spawn: runs a task that must not fail."""

    def __init__(
        self,
        rules: ManagerRules,
        routing: RoutingRules,
        scheduler: Scheduler,
        store: Store,
        resolver: Resolver,
        closing: Closing,
        clogs: ClogWarnings,
        spawn: Callable[[Coroutine[object, object, object]], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.active: dict[QueueId, Message] = {}
        self.incoming = QueueScan(
            store.directory, "incoming", timed=False, expire_mode=FORCED_EXPIRY, clock=clock
        )
        self.deferred = QueueScan(
            store.directory, "deferred", timed=True, expire_mode=FORCED_EXPIRY, clock=clock
        )
        self._rules = rules
        self._routing = routing
        self._scheduler = scheduler
        self._store = store
        self._resolver = resolver
        self._closing = closing
        self._clogs = clogs
        self._spawn = spawn
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pools: dict[str, AgentPool] = {}
        self._in_core = 0  # recipients in memory, all messages
        self._feeding = False
        self._stopped = True  # until begin
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def begin(self) -> None:
        """No other process is at work on the queue: take over what was in its active queue."""
        self._store.recover()
        self._stopped = False
        self.incoming.request()
        self.feed()

    # into the active queue

    def feed(self) -> None:
        """Go on with the scans, while there is room, without holding up other work."""
        if self._feeding or self._stopped:
            return
        if self.incoming.pending or self.deferred.pending:
            self._feeding = True
            self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        self._feeding = False
        budget, taken = _FILES_A_TURN, 0
        limit = self._rules.active_limit
        while budget > 0 and taken < _MESSAGES_A_TURN and len(self.active) < limit:
            before = budget
            for scan in (self.incoming, self.deferred):  # one of each: both make headway
                found, budget = scan.next_found(budget)
                if found is not None and len(self.active) < limit:
                    self.take(found)
                    taken += 1
            if before == budget and not (self.incoming.pending or self.deferred.pending):
                return
        if len(self.active) < limit:
            self.feed()

    def new_mail(self, queue_id: QueueId) -> None:
        """cleanup(8) says that incoming has a new message."""
        if self._stopped or len(self.active) >= self._rules.active_limit:
            self.incoming.request()  # goes on when there is room
            return
        self.take(Found("incoming", queue_id, False, False))

    def take(self, found: Found) -> None:
        """Move a message into the active queue and get it going."""
        queue_id = found.queue_id
        if queue_id in self.active or not self._store.activate(
            queue_id, found.queue_name, keep_log=found.expire
        ):
            return
        limit = max(self._rules.recipient_minimum, self._rules.recipient_limit - self._in_core)
        now = self._clock()
        try:
            read = self._store.read(queue_id, now, limit)
        except FileNotFoundError:
            return
        except QueueFileCorrupt as err:
            self._store.set_aside(queue_id, str(err))
            return
        except StillDelivering:
            LOG.info(f"{queue_id}: skipped, still being delivered")
            self._store.defer(queue_id, now + self._rules.retry_delay)
            return
        except OSError as err:
            LOG.warning(f"open active {queue_id}: {err.strerror}")
            self._store.defer(queue_id, now + self._rules.retry_delay)
            return
        self._begin(read, found)

    def _begin(self, read: Read, found: Found) -> None:
        message = read.message
        message.forced_expiry = found.expire
        if found.expire:
            message.reported = self._store.deferred_before(message.queue_id)
        message.flush = found.flush
        if self._rules.confirm_cleared and message.envelope.warn_time < 0:
            message.tflags |= TraceFlag.DELAY_CLEARED.value
        message.traced = bool(message.tflags) or bool(message.envelope.flags & _EXPANDED)
        self.active[message.queue_id] = message
        LOG.event(QueueActive(message.queue_id, message.envelope.sender, message.size, read.total))
        self._assign(message, read.recipients)

    # routing

    def _assign(self, message: Message, recipients: Sequence[Recipient]) -> None:
        """Find the routes, at once if they are known."""
        message.refilled = self._clock()
        if message.reported:
            message.deferred = True
            recipients = [one for one in recipients if one.offset not in message.reported]
        if not recipients:
            self._check_done(message)
            return
        if message.envelope.redirect:
            recipients = self._redirect(message, recipients)
        message.open += 1  # the message does not end while this goes on
        sender = message.envelope.sender
        replies: list[ResolveReply | None]
        if needs_resolver(message):
            known_route = self._resolver.known_route
            replies = [known_route(sender, recipient.address) for recipient in recipients]
            if None in replies:
                self._spawn(self._resolve(message, recipients, replies))
                return
        else:
            replies = [None] * len(recipients)
        self._assigned(message, recipients, replies)

    def _redirect(self, message: Message, recipients: Sequence[Recipient]) -> Sequence[Recipient]:
        """A REDIRECT action: one recipient gets the message, in place of all."""
        keep = 0 if message.redirected else 1
        message.redirected = True
        self._mark_done(message, recipients[keep:])
        address = message.envelope.redirect
        return [recipient._replace(address=address) for recipient in recipients[:keep]]

    def _mark_done(self, message: Message, recipients: Sequence[Recipient]) -> None:
        if not recipients:
            return
        try:
            self._store.mark_done(message, recipients)
        except (OSError, QueueFileCorrupt) as err:
            LOG.warning(f"{message.queue_id}: update queue file: {err}")
            message.deferred = True

    async def _resolve(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        replies: list[ResolveReply | None],
    ) -> None:
        sender = message.envelope.sender
        if len(recipients) > 1:
            with suppress(ServiceUnavailable):  # then each is asked for
                unknown = zip(recipients, replies, strict=True)
                await self._resolver.prefetch(
                    sender, [recipient.address for recipient, reply in unknown if reply is None]
                )
        for at, recipient in enumerate(recipients):
            if replies[at] is None:
                replies[at] = await self._ask(sender, recipient.address)
        self._assigned(message, recipients, replies)

    async def _ask(self, sender: str, address: str) -> ResolveReply:
        try:
            return await self._resolver.resolve(sender, address)
        except ServiceUnavailable as err:
            LOG.warning(f"resolve {address}: {err}")
            transport = TransportName(self._routing.retry_transport)
            return ResolveReply(0, transport, Nexthop(RESOLVER_FAILURE), address)

    def _assigned(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        replies: Sequence[ResolveReply | None],
    ) -> None:
        """Hand the recipients to the scheduler, grouped by destination, and get it going."""
        groups: dict[tuple[str, str, str], tuple[Nexthop, list[Recipient]]] = {}
        discarded: list[Recipient] = []
        rules = self._routing
        for recipient, reply in zip(recipients, replies, strict=True):
            found = route(rules, message, recipient, reply)
            if isinstance(found, Discard):
                discarded.append(found.recipient)
                continue
            if recipient.notify & _SUCCESS:
                message.traced = True
            key = (found.transport, found.destination, found.nexthop.lower())
            group = groups.get(key)
            if group is None:
                groups[key] = (found.nexthop, [found.recipient])
            else:
                group[1].append(found.recipient)
        transports: dict[str, Transport] = {}
        ordered = sorted(groups.items()) if len(groups) > 1 else groups.items()
        for (name, destination, _), (nexthop, members) in ordered:
            if len(members) > 1:
                members.sort(key=_by_domain)
            transport = self._enqueue(message, name, destination, nexthop, members)
            if transport is not None:
                transports[transport.name] = transport
        if discarded:
            self._discard(message, discarded)
        self._scheduler.added(message, transports.values())
        message.open -= 1
        for transport in transports.values():
            self._wake(transport)
        self._check_done(message)

    def _enqueue(
        self,
        message: Message,
        name: str,
        destination: str,
        nexthop: Nexthop,
        recipients: Sequence[Recipient],
    ) -> Transport | None:
        """Give recipients to the scheduler, or to retry: if the destination is dead."""
        scheduler = self._scheduler
        transport = scheduler.transport(name)
        reason = scheduler.suspended(transport, destination)
        if reason and message.flush:
            scheduler.revive(transport, destination)
            reason = ""
        if reason:
            retry = self._routing.retry_transport
            if name == retry or scheduler.transport(retry).dead_until:
                self._defer_here(message, recipients, reason)
                return None
            return self._enqueue(message, retry, reason, Nexthop(reason), recipients)
        self._in_core += len(recipients)
        queue = scheduler.add(message, transport, destination, nexthop, recipients)
        self._clogs.check(queue, len(self.active), self._clock())
        return transport

    def _discard(self, message: Message, recipients: Sequence[Recipient]) -> None:
        for recipient in recipients:
            text = "undeliverable postmaster notification discarded"
            log_status(message, recipient, "2.0.0", "sent", text)
        self._mark_done(message, recipients)

    # deliveries

    def _wake(self, transport: Transport) -> None:
        pool = self._pools.get(transport.name)
        if pool is None:
            pool = self._pools[transport.name] = self._new_pool(transport)
        pool.wake()

    def _new_pool(self, transport: Transport) -> AgentPool:
        def take() -> tuple[Entry, bytes] | None:
            if self._stopped:
                return None
            entry = self._scheduler.select(transport, self._clock())
            return None if entry is None else (entry, self._request(entry))

        def waiting(most: int) -> int:
            return 0 if self._stopped else self._scheduler.ready_count(transport, most)

        def unreachable(reason: str) -> None:
            if transport.dead_until:
                return  # another connection has failed before
            LOG.warning(f"connect to transport private/{transport.name}: {reason}")
            self._transport_failed(transport, "4.3.0 mail transport unavailable")

        dispatch = Dispatch(take, waiting, self._replied, self._crashed, unreachable)
        return AgentPool(f"private/{transport.name}", dispatch, self._rules.agent_times)

    def _request(self, entry: Entry) -> bytes:
        message, destination = entry.message, entry.destination
        envelope = message.envelope
        keep = _KEEP if destination.in_demand(entry.selected) else 0
        return CODEC.encode(
            DeliverRequest(
                flags=message.tflags | keep,
                queue_name="active",
                queue_id=message.queue_id,
                transport=TransportName(destination.transport.name),
                nexthop=entry.nexthop,
                sender=_sender_for(entry),
                envelope_flags=envelope.flags,
                dsn_envid=envelope.dsn_envid,
                rewrite_context=envelope.rewrite_context,
                size=message.size,
                arrival=message.arrival,
                queued=message.queued,
                active=entry.selected,
                client_name=envelope.log_client_name or envelope.client_name,
                client_address=envelope.log_client_address or envelope.client_address,
                client_port=envelope.log_client_port or envelope.client_port,
                helo_name=envelope.log_helo_name or envelope.helo_name,
                protocol_name=envelope.log_protocol_name or envelope.protocol_name,
                sasl_method=envelope.sasl_method,
                sasl_username=envelope.sasl_username,
                sasl_sender=envelope.sasl_sender,
                log_ident=envelope.log_ident or message.queue_id,
                recipients=tuple(entry.recipients),
            )
        )

    def _replied(self, entry: Entry, reply: DeliverReply) -> None:
        """An agent has dealt with an entry: reply.dsn says whether its destination failed."""
        message, now = entry.message, self._clock()
        if reply.deferred:
            message.deferred = True
        self._in_core -= len(entry.recipients)
        if not reply.dsn:
            self._scheduler.delivered(entry, now)
        else:
            reason = f"{reply.dsn} {_SUSPENDED}{reply.reason}"
            self._reroute(self._scheduler.destination_failed(entry, reason, now), reason)
        if self._rules.feedback_debug:
            self._log_feedback(entry)
        self._arm_timer()
        self._check_done(message)

    def _crashed(self, entry: Entry, why: str) -> None:
        """What became of the recipients will be seen in the file at the next try."""
        transport = entry.destination.transport
        LOG.warning(f"private/{transport.name} socket: {why}")
        LOG.warning(
            f"transport {transport.name} failure -- see a previous warning/fatal/panic logfile"
            " record for the problem description"
        )
        entry.message.deferred = True
        self._in_core -= len(entry.recipients)
        self._scheduler.aborted(entry, self._clock())
        self._transport_failed(transport, "4.3.0 unknown mail transport error")
        self._check_done(entry.message)

    def _transport_failed(self, transport: Transport, reason: str) -> None:
        drained = self._scheduler.transport_failed(transport, reason, self._clock())
        self._arm_timer()
        self._reroute(drained, reason)

    def _reroute(self, entries: Iterable[Entry], reason: str) -> None:
        """Entries of a dead destination or transport: to retry:, which defers them."""
        retry = self._scheduler.transport(self._routing.retry_transport)
        for entry in entries:
            message, recipients = entry.message, entry.recipients
            if entry.destination.transport is retry or retry.dead_until:
                self._defer_here(message, recipients, reason)
            else:
                self._in_core += len(recipients)
                self._scheduler.add(message, retry, reason, Nexthop(reason), recipients)
                self._scheduler.added(message, (retry,))
            self._in_core -= len(recipients)
            self._scheduler.dropped(entry)
        if entries:
            self._wake(retry)

    def _defer_here(self, message: Message, recipients: Sequence[Recipient], reason: str) -> None:
        """There is no agent that could defer these."""
        message.deferred = True
        message.open += 1
        dsn, _, text = reason.partition(" ")

        async def record() -> None:
            for recipient in recipients:
                await record_deferred(self._closing.reporters.defer, message, recipient, dsn, text)
            message.open -= 1
            self._check_done(message)

        self._spawn(record())

    def _log_feedback(self, entry: Entry) -> None:
        destination = entry.destination
        window = destination.window
        LOG.info(
            f"qmgr_queue_feedback: queue {destination.name}: limit"
            f" {destination.transport.limits.window.limit} window {window.concurrency} success"
            f" {window.success:g} failure {window.failure:g} fail_cohorts"
            f" {window.failed_cohorts:g}"
        )

    # time

    def _arm_timer(self) -> None:
        wake = self._scheduler.next_wake()
        if wake is None or (self._timer is not None and self._timer_at <= wake):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wake
        self._timer = self._loop.call_later(max(0.0, wake - self._clock()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        for transport in self._scheduler.expire(self._clock()):
            self._wake(transport)
        self._arm_timer()

    # the end of a message

    def _check_done(self, message: Message) -> None:
        """Read more recipients, or end the message, if that is due."""
        if message.next_offset and not self._stopped and self._refill(message):
            return  # this was looked at again behind the recipients that came
        if message.open or message.next_offset:
            return
        if self._closing.nothing_to_report(message):
            self._remove(message)
        else:
            message.open += 1
            self._spawn(self._close(message))

    def _refill(self, message: Message) -> bool:
        """Read recipients, if there is room. Returns whether there were any."""
        room = self._scheduler.room(message, self._clock())
        if message.in_core == 0 and message.open == 0:
            room = max(room, self._rules.recipient_minimum)
        if room <= 0:
            return False
        try:
            recipients = self._store.read_more(message, room)
        except (OSError, QueueFileCorrupt) as err:
            LOG.warning(f"{message.queue_id}: read recipients: {err}")
            message.next_offset = message.unread = 0
            message.deferred = True
            return False
        if not message.next_offset:
            self._scheduler.message_read(message)
        if recipients:
            self._assign(message, recipients)
        return bool(recipients)

    async def _close(self, message: Message) -> None:
        if await self._closing.close(message):
            self._remove(message)
        else:
            self._leave(message)

    def _remove(self, message: Message) -> None:
        if self._store.remove(message.queue_id):
            LOG.event(QueueRemoved(message.queue_id))
        self._leave(message)

    def _leave(self, message: Message) -> None:
        del self.active[message.queue_id]
        self.feed()

    # requests

    def flush(self, queue_id: QueueId) -> None:
        """Try one message now, "" for all, whatever is known of its destinations."""
        if not queue_id:
            self._scheduler.revive_all()
            self.deferred.request(ignore_times=True, flush=True)
            self.incoming.request(flush=True)
            self.feed()
            return
        if len(self.active) < self._rules.active_limit:
            self.take(Found("deferred", queue_id, False, True))
        elif self._store.move(queue_id, "deferred", "incoming"):
            self.incoming.request()

    def trigger(self, letter: str) -> None:
        """A request byte of qmgr(8), TRIGGERS: A and F come before D and I."""
        if letter == "A":
            self.deferred.request(ignore_times=True)
        elif letter == "F":
            self._scheduler.revive_all()
            self.deferred.request(flush=True)
            self.incoming.request(flush=True)
        elif letter == "D":
            self._store.retry()
            self.deferred.request()
        else:
            self.incoming.request()
        self.feed()

    async def stop(self, grace: float) -> None:
        """Begin no more deliveries; give those under way `grace` seconds to end."""
        self._stopped = True
        for _ in range(int(grace / _STOP_LOOK)):
            if not any(pool.busy for pool in self._pools.values()):
                break
            await asyncio.sleep(_STOP_LOOK)
        for pool in self._pools.values():
            pool.close()


def _sender_for(entry: Entry) -> str:
    """The sender, which with VERP names the only recipient, as the client gave it."""
    envelope = entry.message.envelope
    if not envelope.verp_delims:
        return envelope.sender
    recipient = entry.recipients[0]
    whom = recipient.orig_rcpt or recipient.address
    return verp_sender(envelope.sender, envelope.verp_delims, whom)


def _by_domain(recipient: Recipient) -> tuple[str, str]:
    """The order in which a transaction has its recipients."""
    address = recipient.address.lower()
    return address.rpartition("@")[2], address
