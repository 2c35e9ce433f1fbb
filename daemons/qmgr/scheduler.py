"""Which delivery comes next: the preemptive scheduler of SCHEDULER_README, without any I/O.

It is told what happened (`add`, `delivered`, `destination_failed`, `transport_failed`, `expire`)
and asked what to do (`select`). The terms are those of the document: a *transport* has
*destinations* (its queues); a message is a *job* of each transport that it uses; a job has a *peer*
for each of its destinations; a peer has *entries*, groups of recipients that make one delivery.

Order. A transport delivers its jobs in the order of their keys, except for those with no
destination that can take a delivery now. A key is a tuple: (number, inf) by arrival; a job that
goes ahead of the job with key (..., inf) gets (..., n, inf), n counting up, so that it is right in
front of that job and behind those which went ahead before. Within a job the destinations take
turns.

Finding the next entry costs O(log n): each destination has a heap of its peers, and the transport
a heap of the destinations that can take a delivery, each by the key of its first peer.

What waits is in `jobs`, who may go ahead in `preemption`, who gets nothing for a while in
`suspensions`; `counts` has all numbers that must agree.
"""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from daemons.qmgr.counts import Counts
from daemons.qmgr.jobs import (
    Destination,
    Entry,
    Job,
    Peer,
    Transport,
    fill,
    first_ready,
    offer,
)
from daemons.qmgr.message import Message
from daemons.qmgr.params import TransportLimits
from daemons.qmgr.preemption import go_ahead, register
from daemons.qmgr.suspensions import Suspensions
from libmail.ipc.messages import Nexthop, Recipient

__all__ = ["Scheduler"]


class Scheduler:
    """All transports. Times are of the epoch and given by the caller."""

    def __init__(
        self,
        limits: Callable[[str], TransportLimits],
        *,
        dead_time: float,
        retry_time: float,
        dead_limit: int = 20000,
    ) -> None:
        """limits: of a transport. dead_time, retry_time: seconds that a destination (transport)

        stays dead: `minimal_backoff_time`, `transport_retry_time`. dead_limit: the most dead
        destinations that are remembered.
        """
        self.transports: dict[str, Transport] = {}
        self.counts: Final = Counts()
        self.suspensions: Final = Suspensions(
            dead_time=dead_time, retry_time=retry_time, dead_limit=dead_limit
        )
        self._limits = limits
        self._numbers = count(1)

    def transport(self, name: str) -> Transport:
        """The transport of this name, new if need be."""
        transport = self.transports.get(name)
        if transport is None:
            transport = self.transports[name] = Transport(name, self._limits(name))
        return transport

    # what is to be delivered

    def add(
        self,
        message: Message,
        transport: Transport,
        name: str,
        nexthop: Nexthop,
        recipients: list[Recipient],
    ) -> Destination:
        """Recipients of a message for a destination of this name."""
        destination = transport.destinations.get(name)
        if destination is None:
            destination = transport.destinations[name] = Destination(transport, name)
        job = transport.jobs.get(message)
        if job is None:
            job = transport.jobs[message] = Job(message, next(self._numbers))
        peer = job.peers.get(destination)
        if peer is None:
            peer = job.peers[destination] = Peer(job, destination, next(self._numbers))
            heappush(destination.peers, peer.item())
        added = fill(peer, nexthop, recipients)
        self.counts.taken(job, destination, len(recipients), added)
        offer(destination)
        return destination

    def added(self, message: Message, transports: Iterable[Transport]) -> None:
        """All recipients of the message that are in memory have been added."""
        for transport in transports:
            if not message.unread and transport.fresh is None:
                continue  # most often
            job = transport.jobs.get(message)
            if job is None:
                continue
            if message.unread:
                transport.unread.append(job)
            if transport.fresh is not None and not job.selected:
                register(transport.fresh, job, len(transport.jobs))

    def room(self, message: Message, now: float) -> int:
        """How many more recipients of a message to read now; the most if nothing is in memory.

        A transport gives all free places to its oldest job that has unread recipients; a job that
        went ahead of others takes half of what is left and of the extra places.
        """
        room, due = 0, message.in_core == 0
        for transport in self.transports.values():
            job = transport.jobs.get(message)
            if job is None:
                continue
            limits = transport.limits
            free = limits.in_core - transport.in_core
            if len(job.key) > 2:
                room += max(0, (free + limits.extra_in_core) // 2)
            elif _oldest_unread(transport) is job:
                room += max(0, free)
            due = (
                due
                or room >= limits.refill_limit
                or (room > 0 and now - message.refilled >= limits.refill_delay)
            )
        return room if due else 0

    # what comes next

    def ready_count(self, transport: Transport, most: int) -> int:
        """How many entries `select` would find in a row, counted up to `most`."""
        if first_ready(transport) is None:
            return 0
        total, seen = 0, set[Destination]()
        for item in transport.ready:
            destination = item[3].destination
            if destination.offered is item and destination.can_take and destination not in seen:
                seen.add(destination)
                room = destination.window.concurrency - destination.busy
                total += min(room, destination.waiting)
                if total >= most:
                    return most
        return 1 if transport.limits.transport_rate_delay else total

    def select(self, transport: Transport, now: float) -> Entry | None:
        """Take the entry to deliver next; None if there is none that may be delivered now."""
        item = first_ready(transport)
        if item is None:
            return None
        job = item[3].job
        if job.entries >= transport.big:
            candidate = go_ahead(transport, job, now)
            if candidate is not None:
                self._moved(candidate)
                item = first_ready(transport) or item
        return self._take(transport, item[3])

    @staticmethod
    def _moved(job: Job) -> None:
        """The key of a job is another one."""
        for destination, peer in job.peers.items():
            heappush(destination.peers, peer.item())
            offer(destination)

    def _take(self, transport: Transport, peer: Peer) -> Entry:
        """The next entry of the peer that `first_ready` has found."""
        job, destination = peer.job, peer.destination
        entry = peer.entries.popleft()
        peer.turn += 1
        job.selected += 1
        self.counts.selected(destination)
        destination.offered = None
        heappop(transport.ready)
        heappop(destination.peers)
        if peer.entries:
            heappush(destination.peers, peer.item())
        else:
            del job.peers[destination]
            if not job.peers and not job.message.unread:
                transport.forget(job)
        if destination.waiting:
            offer(destination)
        return entry

    # what has happened

    def delivered(self, entry: Entry, now: float) -> None:
        """A delivery has ended, well or not, and not for a fault of its destination."""
        destination = entry.peer.destination
        if destination.dead_until:
            self.suspensions.revive(destination)
        destination.window.succeeded(destination.busy)
        self._ended(entry, now)

    def destination_failed(self, entry: Entry, reason: str, now: float) -> list[Entry]:
        """A delivery has failed for its destination; reason: "4.x.x text".

        Returns the entries that were waiting for a destination that is dead now. They are not the
        scheduler's any more.
        """
        destination = entry.peer.destination
        drained: list[Entry] = []
        failed = destination.window.failed()
        if (
            failed
            and not destination.dead_until
            and self.suspensions.declare_dead(destination, reason, now)
        ):
            drained = self._drain(destination)
        self._ended(entry, now)
        return drained

    def transport_failed(self, transport: Transport, reason: str, now: float) -> list[Entry]:
        """A transport does not work; returns the entries that were waiting, as above."""
        if not transport.dead_until:
            self.suspensions.declare_dead(transport, reason, now)
        return [
            entry
            for destination in list(transport.destinations.values())
            for entry in self._drain(destination)
        ]

    def aborted(self, entry: Entry, now: float) -> None:
        """A delivery has ended in a way that says nothing about its destination."""
        self._ended(entry, now)

    def dropped(self, entry: Entry) -> None:
        """An entry from a list of drained ones is done, or has been added elsewhere."""
        self.counts.done(entry)

    def _ended(self, entry: Entry, now: float) -> None:
        destination = entry.peer.destination
        transport = destination.transport
        destination.last_done = now
        self.counts.ended(entry)
        limits = transport.limits
        if limits.transport_rate_delay:
            self.suspensions.pause(transport, limits.transport_rate_delay, now)
        if limits.rate_delay and not destination.dead_until:
            self.suspensions.pause(destination, limits.rate_delay, now)
        if destination.waiting:
            offer(destination)
        else:
            destination.forget_if_idle()

    def _drain(self, destination: Destination) -> list[Entry]:
        """Take all that waits for a destination."""
        drained: list[Entry] = []
        transport = destination.transport
        for _, _, _, peer in destination.peers:
            if not peer.entries:
                continue
            drained += peer.entries
            job = peer.job
            self.counts.withdrawn(peer)
            peer.entries.clear()
            del job.peers[destination]
            if not job.peers and not job.message.unread:
                transport.forget(job)
        destination.peers.clear()
        destination.offered = None
        destination.forget_if_idle()
        return drained

    def message_read(self, message: Message) -> None:
        """All recipients of a message have been read at last: jobs without any may go."""
        for transport in self.transports.values():
            job = transport.jobs.get(message)
            if job is not None and not job.peers:
                transport.forget(job)

    def revive(self, transport: Transport, name: str) -> None:
        """Try this transport and destination again although they were dead."""
        if transport.dead_until:
            self.suspensions.revive(transport)
        destination = transport.destinations.get(name)
        if destination is not None and destination.dead_until:
            self.suspensions.revive(destination)
            offer(destination)

    def revive_all(self) -> None:
        """Forget what is known of dead transports and destinations."""
        self.suspensions.revive_all(self.transports.values())


def _oldest_unread(transport: Transport) -> Job | None:
    unread = transport.unread
    while unread and not unread[0].message.unread:
        unread.popleft()
    return unread[0] if unread else None
