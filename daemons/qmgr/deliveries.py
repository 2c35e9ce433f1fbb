"""Deliveries under way: entries of the scheduler to agents, and what the agents answer.

What waits for a destination or transport that is dead goes to retry:, which defers it; where that
cannot be, it is recorded as deferred here.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence, Sized
from typing import Final

from daemons.qmgr.agents import AgentPool, AgentTimes, Dispatch
from daemons.qmgr.clog import ClogWarnings
from daemons.qmgr.jobs import Entry, Transport
from daemons.qmgr.message import Message
from daemons.qmgr.open_files import OpenFiles
from daemons.qmgr.reports import answer_probe, record_deferred
from daemons.qmgr.routing import Route
from daemons.qmgr.scheduler import Scheduler
from libmail.ipc.messages import (
    CODEC,
    DeliverFlag,
    DeliverReply,
    DeliverRequest,
    Nexthop,
    Recipient,
)
from libmail.log import LOG
from libmail.message.verp import verp_sender
from libmail.service.pool import ServiceClient

__all__ = ["Deliveries"]

_KEEP: Final = DeliverFlag.KEEP.value
_SUSPENDED: Final = "delivery temporarily suspended: "
_STOP_LOOK: Final = 0.02  # seconds between looks whether deliveries have ended


class Deliveries:
    """retry: name of the transport that defers. active: the messages of the active queue.

    check_done: told when a message may be complete. spawn: runs a task that must not fail.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        retry: str,
        defer: ServiceClient,
        verify: ServiceClient,
        agent_times: AgentTimes,
        feedback_debug: bool,
        clogs: ClogWarnings,
        files: OpenFiles,
        active: Sized,
        check_done: Callable[[Message], None],
        spawn: Callable[[Coroutine[object, object, object]], object],
        clock: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._retry = retry
        self._defer = defer
        self._verify = verify
        self._agent_times = agent_times
        self._feedback_debug = feedback_debug
        self._clogs = clogs
        self._files = files
        self._active = active
        self._check_done = check_done
        self._spawn = spawn
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pools: dict[str, AgentPool] = {}
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def enqueue(
        self, message: Message, route: Route, recipients: list[Recipient]
    ) -> Transport | None:
        """Give recipients with one route to the scheduler, or to retry: if that is dead."""
        name, nexthop, destination, _ = route
        scheduler = self._scheduler
        transport = scheduler.transport(name)
        reason = scheduler.suspensions.reason(transport, destination)
        if reason and message.flush:
            scheduler.revive(transport, destination)
            reason = ""
        if reason:
            retry = self._retry
            if name == retry or scheduler.transport(retry).dead_until:
                self._defer_here(message, recipients, reason)
                return None
            return self.enqueue(message, route.instead(retry, reason), recipients)
        queue = scheduler.add(message, transport, destination, nexthop, recipients)
        self._clogs.check(queue, len(self._active), self._clock())
        return transport

    def wake(self, transport: Transport) -> None:
        """There may be something to deliver over this transport."""
        if not transport.ready:
            return
        pool = self._pools.get(transport.name)
        if pool is None:
            pool = self._pools[transport.name] = self._new_pool(transport)
        pool.wake()

    def _new_pool(self, transport: Transport) -> AgentPool:
        def take() -> tuple[Entry, bytes, int] | None:
            while transport.ready and not self._stopped:
                now = self._clock()
                entry = self._scheduler.select(transport, now)
                if entry is None:
                    return None
                fd = self._open(entry, now)
                if fd is not None:
                    return entry, self._request(entry, now), fd
            return None

        def ready() -> bool:
            return bool(transport.ready) and not self._stopped

        def waiting(most: int) -> int:
            if not transport.ready or self._stopped:
                return 0
            return self._scheduler.ready_count(transport, most)

        def unreachable(reason: str) -> None:
            if transport.dead_until:
                return  # another connection has failed before
            LOG.warning(f"connect to transport private/{transport.name}: {reason}")
            self._transport_failed(transport, "4.3.0 mail transport unavailable")

        dispatch = Dispatch(take, ready, waiting, self._replied, self._crashed, unreachable)
        return AgentPool(f"private/{transport.name}", dispatch, self._agent_times)

    def _open(self, entry: Entry, now: float) -> int | None:
        """The queue file for an entry; None, and the entry is done with, if it cannot be opened."""
        queue_id = entry.message.queue_id
        try:
            return self._files.take(queue_id, now)
        except OSError as err:
            LOG.warning(f"{queue_id}: open queue file: {err.strerror}")
            self._replied(entry, DeliverReply(True, "", ""))
            return None

    def _request(self, entry: Entry, now: float) -> bytes:
        message, destination = entry.message, entry.peer.destination
        envelope = message.envelope
        sender = _verp_sender(entry) if envelope.verp_delims else envelope.sender
        keep = _KEEP if destination.in_demand(now) else 0
        return CODEC.encode(
            DeliverRequest(
                flags=message.tflags | keep,
                queue_id=message.queue_id,
                transport=destination.transport.name,
                nexthop=entry.nexthop,
                sender=sender,
                envelope_flags=envelope.flags,
                dsn_envid=envelope.dsn_envid,
                size=message.size,
                queued=message.queued,
                recipients=tuple(entry.recipients),
            )
        )

    def _replied(self, entry: Entry, reply: DeliverReply) -> None:
        """An agent has dealt with an entry: reply.dsn says whether its destination failed."""
        message, now = entry.message, self._clock()
        if reply.deferred:
            message.deferred = True
        if not reply.dsn:
            self._scheduler.delivered(entry, now)
        else:
            reason = f"{reply.dsn} {_SUSPENDED}{reply.reason}"
            self._reroute(self._scheduler.destination_failed(entry, reason, now), reason)
        if self._feedback_debug:
            self._log_feedback(entry)
        if self._scheduler.suspensions.timers:
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
        self._scheduler.aborted(entry, self._clock())
        self._transport_failed(transport, "4.3.0 unknown mail transport error")
        self._check_done(entry.message)

    def _transport_failed(self, transport: Transport, reason: str) -> None:
        drained = self._scheduler.transport_failed(transport, reason, self._clock())
        self._arm_timer()
        self._reroute(drained, reason)

    def _reroute(self, entries: Iterable[Entry], reason: str) -> None:
        """Entries of a dead destination or transport: to retry:, which defers them."""
        retry = self._scheduler.transport(self._retry)
        for entry in entries:
            message, recipients = entry.message, entry.recipients
            if entry.destination.transport is retry or retry.dead_until:
                self._defer_here(message, recipients, reason)
            else:
                self._scheduler.add(message, retry, reason, Nexthop(reason), recipients)
                self._scheduler.added(message, (retry,))
            self._scheduler.dropped(entry)
        if entries:
            self.wake(retry)

    def _defer_here(self, message: Message, recipients: Sequence[Recipient], reason: str) -> None:
        """There is no agent that could defer these."""
        message.deferred = True
        self._scheduler.counts.held(message)
        dsn, _, text = reason.partition(" ")

        async def record() -> None:
            for recipient in recipients:
                if message.probe:
                    await answer_probe(self._verify, message, recipient, dsn, text)
                else:
                    await record_deferred(self._defer, message, recipient, dsn, text)
            self._scheduler.counts.released(message)
            self._check_done(message)

        self._spawn(record())

    def answer_here(self, message: Message, recipients: Sequence[Recipient], reason: str) -> None:
        """These recipients of a probe take mail, which no agent is asked about."""
        self._scheduler.counts.held(message)
        dsn, _, text = reason.partition(" ")

        async def tell() -> None:
            for recipient in recipients:
                await answer_probe(self._verify, message, recipient, dsn, text)
            self._scheduler.counts.released(message)
            self._check_done(message)

        self._spawn(tell())

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
        wake = self._scheduler.suspensions.next_wake()
        if wake is None or (self._timer is not None and self._timer_at <= wake):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wake
        self._timer = self._loop.call_later(max(0.0, wake - self._clock()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        for transport in self._scheduler.suspensions.expire(self._clock()):
            self.wake(transport)
        self._arm_timer()

    async def stop(self, grace: float) -> None:
        """Begin no more deliveries; give those under way `grace` seconds to end."""
        self._stopped = True
        for _ in range(int(grace / _STOP_LOOK)):
            if not any(pool.busy for pool in self._pools.values()):
                break
            await asyncio.sleep(_STOP_LOOK)
        for pool in self._pools.values():
            pool.close()


def _verp_sender(entry: Entry) -> str:
    """The sender, which names the only recipient, as the client gave it."""
    envelope, recipient = entry.message.envelope, entry.recipients[0]
    whom = recipient.orig_rcpt or recipient.address
    return verp_sender(envelope.sender, envelope.verp_delims, whom)
