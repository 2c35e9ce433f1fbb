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
a heap of the destinations that can take a delivery, each by the key of its first peer. Heap items
are never moved: what has changed is pushed again, and the stale item is recognised when it comes
to the top.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final

from daemons.qmgr.feedback import Window
from daemons.qmgr.message import Message
from daemons.qmgr.params import TransportLimits
from libmail.ipc.batches import octets
from libmail.ipc.messages import Nexthop, Recipient

_LAST: Final = math.inf
_CLOSELY: Final = 1  # full seconds between deliveries that make a kept connection worth while
_ALWAYS_FIT: Final = 50  # recipients that fit into a request, whatever they are
_REQUEST_ROOM: Final = 1 << 18  # octets of recipients; an entry may get as many again later
_CANDIDATES: Final = 16  # jobs of one size that are looked at before giving up on that size

JobKey = tuple[float, ...]
PeerItem = tuple[JobKey, int, int, "Peer"]
ReadyItem = tuple[JobKey, int, int, "Destination"]


class Entry:
    """Recipients of one message that make one delivery."""

    __slots__ = ("message", "nexthop", "peer", "recipients", "selected")

    def __init__(
        self, peer: "Peer", message: Message, nexthop: Nexthop, recipients: list[Recipient]
    ) -> None:
        self.peer = peer
        self.message = message
        self.nexthop = nexthop
        self.recipients = recipients
        self.selected = 0.0  # when, of the epoch

    @property
    def destination(self) -> "Destination":
        """Where it goes."""
        return self.peer.destination


class Peer:
    """A job's entries for one destination; turn: how many have been selected."""

    __slots__ = ("destination", "entries", "job", "number", "turn")

    def __init__(self, job: "Job", destination: "Destination", number: int) -> None:
        self.job = job
        self.destination = destination
        self.number = number
        self.entries: deque[Entry] = deque()
        self.turn = 0


class Job:
    """A message's share of a transport.

    entries: of all peers, ever. selected: how many of them have been. slots: delivery slots that
    it has accumulated, times the slot cost; below 0 after a loan. children: jobs that went ahead
    of it.
    """

    __slots__ = ("children", "entries", "key", "message", "peers", "selected", "slots")

    def __init__(self, message: Message, number: int) -> None:
        self.message = message
        self.key: JobKey = (number, _LAST)
        self.peers: dict[Destination, Peer] = {}
        self.entries = 0
        self.selected = 0
        self.slots = 0
        self.children = 0


class Destination:
    """A queue of SCHEDULER_README: deliveries over one transport to one destination.

    busy: deliveries under way. waiting: entries not selected. last_done: when a delivery ended.
    dead_until, paused_until: of the epoch, 0 if it is not; reason: "4.x.x why" while it is dead.
    kept: the last delivery was to leave its connection open.
    """

    __slots__ = ("busy", "dead_until", "kept", "last_done", "name", "offered", "paused_until",
                 "peers", "reason", "transport", "waiting", "warn_at", "window")  # fmt: skip

    def __init__(self, transport: "Transport", name: str) -> None:
        self.transport = transport
        self.name = name
        self.window = Window(transport.limits.window)
        self.busy = 0
        self.waiting = 0
        self.last_done = 0.0
        self.kept = False
        self.dead_until = 0.0
        self.paused_until = 0.0
        self.reason = ""
        self.warn_at = 0.0
        self.peers: list[PeerItem] = []
        self.offered: ReadyItem | None = None

    @property
    def can_take(self) -> bool:
        """Whether a waiting entry may be delivered now, as far as the destination goes."""
        return self.waiting > 0 and self.busy < self.window.concurrency and not self.paused_until

    def in_demand(self, now: float) -> bool:
        """Whether a delivery that begins now is to leave its connection open.

        That begins when one follows closely on another, not with a handful that begin together,
        and goes on as long as they follow or overlap: while there are kept connections nobody
        should make new ones.
        """
        self.kept = int(now) - int(self.last_done) <= _CLOSELY or (self.kept and self.busy > 1)
        return self.kept

    def first(self) -> PeerItem | None:
        """The peer whose turn it is."""
        peers = self.peers
        while peers:
            item = peers[0]
            peer = item[3]
            if peer.entries and item[1] == peer.turn and item[0] is peer.job.key:
                return item
            heappop(peers)
        return None


class Transport:
    """What goes through the agents of one master.cf service.

    in_core: recipients in memory. dead_until, paused_until, reason: as of a destination.
    """

    __slots__ = ("busy", "dead_until", "destinations", "fresh", "in_core", "jobs", "limits", "name",
                 "paused_until", "ready", "reason", "unread")  # fmt: skip

    def __init__(self, name: str, limits: TransportLimits) -> None:
        self.name = name
        self.limits = limits
        self.destinations: dict[str, Destination] = {}
        self.jobs: dict[Message, Job] = {}
        self.ready: list[ReadyItem] = []
        self.fresh: dict[int, deque[Job]] = {}  # jobs with nothing selected, by number of entries
        self.unread: deque[Job] = deque()  # jobs whose messages have unread recipients
        self.busy = 0
        self.in_core = 0
        self.dead_until = 0.0
        self.paused_until = 0.0
        self.reason = ""

    @property
    def can_deliver(self) -> bool:
        """Whether deliveries may start now, as far as the transport itself goes."""
        if self.dead_until or self.paused_until:
            return False
        return not (self.limits.transport_rate_delay and self.busy)


def _size(job: Job) -> int:
    """The most deliveries that a job can still need."""
    return job.entries + job.message.unread


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
        self._limits = limits
        self._dead_time = dead_time
        self._retry_time = retry_time
        self._dead_limit = dead_limit
        self._dead = 0
        self._numbers = count(1)
        self._timers: list[tuple[float, int, Destination | Transport]] = []

    def transport(self, name: str) -> Transport:
        """The transport of this name, new if need be."""
        transport = self.transports.get(name)
        if transport is None:
            transport = self.transports[name] = Transport(name, self._limits(name))
        return transport

    # what is to be delivered

    def suspended(self, transport: Transport, name: str) -> str:
        """Why nothing is sent to this destination now, "4.x.x reason"; "" if it can be sent."""
        if transport.dead_until:
            return transport.reason
        destination = transport.destinations.get(name)
        return destination.reason if destination is not None else ""

    def add(
        self,
        message: Message,
        transport: Transport,
        name: str,
        nexthop: Nexthop,
        recipients: Sequence[Recipient],
    ) -> Destination:
        """Recipients of a message for a destination of this name. Counts them in the message."""
        destination = transport.destinations.get(name)
        if destination is None:
            destination = Destination(transport, name)
            transport.destinations[name] = destination
        job = transport.jobs.get(message)
        if job is None:
            job = transport.jobs[message] = Job(message, next(self._numbers))
        peer = job.peers.get(destination)
        if peer is None:
            peer = job.peers[destination] = Peer(job, destination, next(self._numbers))
        was_idle = not peer.entries
        limit = 1 if message.envelope.verp_delims else transport.limits.recipient_limit
        if limit == 0 or limit > _ALWAYS_FIT:
            limit = min(limit or len(recipients), _fitting(recipients)) or 1
        added = _fill(peer, message, nexthop, recipients, limit)
        total = len(recipients)
        message.in_core += total
        transport.in_core += total
        if not added:
            return destination
        message.open += added
        destination.waiting += added
        job.entries += added
        if was_idle:
            heappush(destination.peers, (job.key, peer.turn, peer.number, peer))
        _offer(destination)
        return destination

    def added(self, message: Message, transports: Iterable[Transport]) -> None:
        """All recipients of the message that are in memory have been added."""
        for transport in transports:
            job = transport.jobs.get(message)
            if job is None:
                continue
            if message.unread:
                transport.unread.append(job)
            if not job.selected:
                _register(transport, job)

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
        if not transport.ready or not transport.can_deliver or _first_ready(transport) is None:
            return 0
        total = 0
        for item in transport.ready:
            destination = item[3]
            if destination.offered is item and destination.can_take:
                room = destination.window.concurrency - destination.busy
                total += min(room, destination.waiting)
                if total >= most:
                    return most
        return 1 if transport.limits.transport_rate_delay else total

    def select(self, transport: Transport, now: float) -> Entry | None:
        """Take the entry to deliver next; None if there is none that may be delivered now."""
        if not transport.ready or not transport.can_deliver:
            return None
        item = _first_ready(transport)
        if item is None:
            return None
        limits = transport.limits
        peer = item[3]
        job = peer.job
        if job.entries >= limits.minimum_slots * limits.slot_cost > 0 and self._preempt(
            transport, job, now
        ):
            item = _first_ready(transport)
            if item is None:
                return None
            peer = item[3]
        return self._take(transport, peer, now)

    def _take(self, transport: Transport, peer: Peer, now: float) -> Entry:
        job, destination = peer.job, peer.destination
        entry = peer.entries.popleft()
        entry.selected = now
        peer.turn += 1
        job.selected += 1
        job.slots += 1
        destination.waiting -= 1
        destination.busy += 1
        transport.busy += 1
        heappop(destination.peers)
        if peer.entries:
            heappush(destination.peers, (job.key, peer.turn, peer.number, peer))
        else:
            del job.peers[destination]
            if not job.peers and not job.message.unread:
                del transport.jobs[job.message]
                if not transport.jobs:
                    transport.fresh.clear()
        _offer(destination)
        return entry

    def _preempt(self, transport: Transport, job: Job, now: float) -> bool:
        """Let another job go ahead of `job`, which is about to be selected, if one may."""
        limits = transport.limits
        cost = limits.slot_cost
        most = (job.slots + job.entries - job.selected) // cost
        candidate = _candidate(transport, job, most, now)
        if candidate is None:
            return False
        needed = _size(candidate)
        missing = needed - job.slots / cost
        if missing > needed * limits.slot_discount / 100 + limits.slot_loan:
            return False
        job.slots -= needed * cost
        candidate.key = (*job.key[:-1], job.children, _LAST)
        job.children += 1
        for destination, peer in candidate.peers.items():
            heappush(destination.peers, (candidate.key, peer.turn, peer.number, peer))
            _offer(destination)
        return True

    # what has happened

    def delivered(self, entry: Entry, now: float) -> None:
        """A delivery has ended, well or not, and not for a fault of its destination."""
        destination = entry.peer.destination
        if destination.dead_until:
            self._revive(destination)
        destination.window.succeeded(destination.busy)
        self._ended(entry, now)

    def destination_failed(self, entry: Entry, reason: str, now: float) -> list[Entry]:
        """A delivery has failed for its destination; reason: "4.x.x text".

        Returns the entries that were waiting for a destination that is dead now. They are not the
        scheduler's any more.
        """
        destination = entry.peer.destination
        drained: list[Entry] = []
        if destination.window.failed() and not destination.dead_until:
            if self._dead >= self._dead_limit:
                destination.window.reset()
            else:
                self._dead += 1
                destination.dead_until = now + self._dead_time
                destination.reason = reason
                self._wake_at(destination.dead_until, destination)
                drained = self._drain(destination)
        self._ended(entry, now)
        return drained

    def transport_failed(self, transport: Transport, reason: str, now: float) -> list[Entry]:
        """A transport does not work; returns the entries that were waiting, as above."""
        if not transport.dead_until:
            transport.dead_until = now + self._retry_time
            transport.reason = reason
            self._wake_at(transport.dead_until, transport)
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
        message, recipients = entry.message, len(entry.recipients)
        message.open -= 1
        message.in_core -= recipients
        entry.peer.destination.transport.in_core -= recipients

    def _ended(self, entry: Entry, now: float) -> None:
        destination = entry.peer.destination
        transport = destination.transport
        destination.busy -= 1
        destination.last_done = now
        transport.busy -= 1
        self.dropped(entry)
        limits = transport.limits
        if limits.transport_rate_delay:
            transport.paused_until = now + limits.transport_rate_delay
            self._wake_at(transport.paused_until, transport)
        if limits.rate_delay and not destination.dead_until:
            destination.paused_until = now + limits.rate_delay
            self._wake_at(destination.paused_until, destination)
        _offer(destination)
        self._forget_if_idle(destination)

    def _drain(self, destination: Destination) -> list[Entry]:
        """Take all that waits for a destination."""
        drained: list[Entry] = []
        transport = destination.transport
        for _, _, _, peer in destination.peers:
            if not peer.entries:
                continue
            drained += peer.entries
            job = peer.job
            job.entries -= len(peer.entries)
            peer.entries.clear()
            del job.peers[destination]
            if not job.peers and not job.message.unread:
                del transport.jobs[job.message]
        destination.peers.clear()
        destination.waiting = 0
        destination.offered = None
        self._forget_if_idle(destination)
        return drained

    def message_read(self, message: Message) -> None:
        """All recipients of a message have been read at last: jobs without any may go."""
        for transport in self.transports.values():
            job = transport.jobs.get(message)
            if job is not None and not job.peers:
                del transport.jobs[message]

    # time

    def _wake_at(self, when: float, what: Destination | Transport) -> None:
        heappush(self._timers, (when, next(self._numbers), what))

    def next_wake(self) -> float | None:
        """When `expire` is to be called next."""
        return self._timers[0][0] if self._timers else None

    def expire(self, now: float) -> set[Transport]:
        """End what was to last until now; returns the transports that may deliver again."""
        changed: set[Transport] = set()
        while self._timers and self._timers[0][0] <= now:
            what = heappop(self._timers)[2]
            if 0 < what.dead_until <= now:
                self._revive(what)
            if 0 < what.paused_until <= now:
                what.paused_until = 0.0
            if isinstance(what, Transport):
                changed.add(what)
            else:
                changed.add(what.transport)
                _offer(what)
                self._forget_if_idle(what)
        return changed

    def _revive(self, what: Destination | Transport) -> None:
        what.dead_until = 0.0
        what.reason = ""
        if isinstance(what, Destination):
            self._dead -= 1
            what.window.reset()

    def revive(self, transport: Transport, name: str) -> None:
        """Try this transport and destination again although they were dead."""
        if transport.dead_until:
            self._revive(transport)
        destination = transport.destinations.get(name)
        if destination is not None and destination.dead_until:
            self._revive(destination)
            _offer(destination)

    def revive_all(self) -> None:
        """Forget what is known of dead transports and destinations."""
        for transport in self.transports.values():
            if transport.dead_until:
                self._revive(transport)
            for destination in list(transport.destinations.values()):
                if destination.dead_until:
                    self._revive(destination)
                self._forget_if_idle(destination)

    def _forget_if_idle(self, destination: Destination) -> None:
        if not (
            destination.busy
            or destination.waiting
            or destination.dead_until
            or destination.paused_until
        ):
            destinations = destination.transport.destinations
            if destinations.get(destination.name) is destination:
                del destinations[destination.name]


def _fitting(recipients: Sequence[Recipient]) -> int:
    """How many of such recipients a request to an agent has room for."""
    return _REQUEST_ROOM // max(map(octets, recipients), default=1)


def _fill(
    peer: Peer, message: Message, nexthop: Nexthop, recipients: Sequence[Recipient], limit: int
) -> int:
    """Append recipients to the entries of a peer; returns how many entries were added."""
    start = 0
    if peer.entries and peer.entries[-1].nexthop == nexthop:
        last = peer.entries[-1].recipients
        start = limit - len(last) if limit else len(recipients)
        last += recipients[:start]
    step = limit or len(recipients)
    added = 0
    for at in range(start, len(recipients), step or 1):
        peer.entries.append(Entry(peer, message, nexthop, list(recipients[at : at + step])))
        added += 1
    return added


def _register(transport: Transport, job: Job) -> None:
    """Make a job that has not begun a candidate for going ahead of others."""
    size = _size(job)
    jobs = transport.fresh.get(size)
    if jobs is None:
        jobs = transport.fresh[size] = deque()
    elif len(jobs) > 2 * len(transport.jobs) + 64:
        live = [job for job in jobs if not _stale(job, size)]
        jobs.clear()
        jobs.extend(live)
    while jobs and _stale(jobs[0], size):
        jobs.popleft()
    jobs.append(job)


def _stale(job: Job, size: int) -> bool:
    return job.selected > 0 or not job.peers or _size(job) != size


def _oldest_unread(transport: Transport) -> Job | None:
    unread = transport.unread
    while unread and not unread[0].message.unread:
        unread.popleft()
    return unread[0] if unread else None


def _offer(destination: Destination) -> None:
    """Put a destination among those that can take a delivery, by its first peer."""
    if not destination.can_take:
        destination.offered = None
        return
    first = destination.first()
    if first is None:
        destination.offered = None
        return
    offered = destination.offered
    if offered is not None and offered[0] is first[0] and offered[1:3] == first[1:3]:
        return
    item = (first[0], first[1], first[2], destination)
    destination.offered = item
    heappush(destination.transport.ready, item)


def _first_ready(transport: Transport) -> PeerItem | None:
    """The peer to select from."""
    ready = transport.ready
    while ready:
        destination = ready[0][3]
        if destination.offered is ready[0]:
            if destination.can_take and (first := destination.first()) is not None:
                return first
            destination.offered = None
        heappop(ready)
    return None


def _candidate(transport: Transport, current: Job, most: int, now: float) -> Job | None:
    """The job that deserves to go ahead of the current one, of those that may.

    It needs at most `most` deliveries, has not begun, and is not blocked. The best is the one with
    the longest waiting time for each delivery that it needs.
    """
    best, best_rank = None, -1.0
    for size in [size for size in transport.fresh if size <= most]:
        jobs = transport.fresh[size]
        job = _first_unblocked(jobs, size, current)
        if not jobs:
            del transport.fresh[size]
        if job is not None:
            rank = (now - job.message.queued + 1e-6) / size
            if rank > best_rank:
                best, best_rank = job, rank
    return best


def _first_unblocked(jobs: deque[Job], size: int, current: Job) -> Job | None:
    """The first job of this size that has a destination which can take a delivery."""
    while jobs and _stale(jobs[0], size):
        jobs.popleft()
    for at in range(min(_CANDIDATES, len(jobs))):
        job = jobs[at]
        if job is current or len(job.key) > 2 or _stale(job, size):
            continue
        if any(destination.can_take for destination in job.peers):
            return job
    return None
