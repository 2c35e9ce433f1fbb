"""What waits for delivery: transports, destinations, jobs, peers, entries; see the scheduler.

Heap items are never moved: what has changed is pushed again, and the stale item is recognised when
it comes to the top.
"""

import math
from collections import deque
from heapq import heappop, heappush
from typing import Final, NamedTuple

from daemons.qmgr.feedback import Window
from daemons.qmgr.message import Message
from daemons.qmgr.params import TransportLimits
from libmail.ipc.batches import octets
from libmail.ipc.messages import Nexthop, Recipient
from libmail.ipc.messages import Transport as TransportName

__all__ = ["LAST", "Destination", "Entry", "Job", "Peer", "PeerItem", "Transport", "fill",
           "first_ready", "offer"]  # fmt: skip

LAST: Final = math.inf
_CLOSELY: Final = 1  # full seconds between deliveries that make a kept connection worth while
_ALWAYS_FIT: Final = 50  # recipients that fit into a request, whatever they are
_REQUEST_ROOM: Final = 1 << 18  # octets of recipients; an entry may get as many again later

JobKey = tuple[float, ...]
PeerItem = tuple[JobKey, int, int, "Peer"]


class Entry(NamedTuple):
    """Recipients of one message that make one delivery."""

    peer: "Peer"
    message: Message
    nexthop: Nexthop
    recipients: list[Recipient]

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

    def item(self) -> PeerItem:
        """What stands for its next entry in the heaps."""
        return self.job.key, self.turn, self.number, self


class Job:
    """A message's share of a transport.

    entries: of all peers, ever. selected: how many of them have been, each of which has earned a
    share of a delivery slot. spent: how many of these shares other jobs have used; more than there
    are after a loan. children: jobs that went ahead of it.
    """

    __slots__ = ("children", "entries", "key", "message", "peers", "selected", "spent")

    def __init__(self, message: Message, number: int) -> None:
        self.message = message
        self.key: JobKey = (number, LAST)
        self.peers: dict[Destination, Peer] = {}
        self.entries = self.selected = self.spent = self.children = 0


class Destination:
    """A queue of SCHEDULER_README: deliveries over one transport to one destination.

    busy: deliveries under way. waiting: entries not selected. last_done: when a delivery ended.
    dead_until, paused_until: of the epoch, 0 if it is not; reason: "4.x.x why" while it is dead.
    kept: the last delivery was to leave its connection open. offered: the item of `peers` that
    stands for it among what is ready (`Transport.ready`).
    """

    __slots__ = ("busy", "dead_until", "kept", "last_done", "name", "offered", "paused_until",
                 "peers", "reason", "transport", "waiting", "warn_at", "window")  # fmt: skip

    def __init__(self, transport: "Transport", name: str) -> None:
        self.transport = transport
        self.name = name
        self.window = Window(transport.limits.window)
        self.busy = self.waiting = 0
        self.last_done = self.dead_until = self.paused_until = self.warn_at = 0.0
        self.reason = ""
        self.kept = False
        self.peers: list[PeerItem] = []
        self.offered: PeerItem | None = None

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

    def forget_if_idle(self) -> None:
        """Drop what is known of it, unless something is going on or is to be remembered."""
        if self.busy or self.waiting or self.dead_until or self.paused_until:
            return
        destinations = self.transport.destinations
        if destinations.get(self.name) is self:
            del destinations[self.name]

    def first(self) -> PeerItem | None:
        """The peer whose turn it is."""
        peers = self.peers
        while peers and peers[0][0] is not peers[0][3].job.key:  # the job has gone ahead since
            heappop(peers)
        return peers[0] if peers else None


class Transport:
    """What goes through the agents of one master.cf service.

    in_core: recipients in memory. dead_until, paused_until, reason: as of a destination.
    ready: for each destination that can take a delivery its first peer; items that are not what
    their destination has `offered` are stale. fresh: see `preemption`. big: jobs of so many entries
    or more may be preempted.
    """

    __slots__ = ("big", "busy", "dead_until", "destinations", "fresh", "in_core", "jobs", "limits",
                 "name", "paused_until", "ready", "reason", "unread")  # fmt: skip

    def __init__(self, name: str, limits: TransportLimits) -> None:
        self.name = TransportName(name)
        self.limits = limits
        self.destinations: dict[str, Destination] = {}
        self.jobs: dict[Message, Job] = {}
        self.ready: list[PeerItem] = []
        self.fresh: dict[int, deque[Job]] | None = None
        self.big = limits.minimum_slots * limits.slot_cost or math.inf
        self.unread: deque[Job] = deque()  # jobs whose messages have unread recipients
        self.busy = self.in_core = 0
        self.dead_until = self.paused_until = 0.0
        self.reason = ""

    @property
    def can_deliver(self) -> bool:
        """Whether deliveries may start now, as far as the transport itself goes."""
        if self.dead_until or self.paused_until:
            return False
        return not (self.limits.transport_rate_delay and self.busy)

    def forget(self, job: Job) -> None:
        """All of its entries have been selected or withdrawn, and there will be no more."""
        del self.jobs[job.message]
        if not self.jobs:
            self.fresh = None


def fill(peer: Peer, nexthop: Nexthop, recipients: list[Recipient]) -> int:
    """Append recipients to the entries of a peer; returns how many entries were added."""
    message, entries = peer.job.message, peer.entries
    if len(recipients) == 1 and not entries:  # most often
        entries.append(Entry(peer, message, nexthop, recipients[:]))
        return 1
    limit, start = _room_for(message, peer.destination.transport, recipients), 0
    if entries and entries[-1].nexthop == nexthop:
        last = entries[-1].recipients
        start = max(0, limit - len(last))
        last += recipients[:start]
    added = range(start, len(recipients), limit)
    for at in added:
        entries.append(Entry(peer, message, nexthop, recipients[at : at + limit]))
    return len(added)


def _room_for(message: Message, transport: Transport, recipients: list[Recipient]) -> int:
    """The most recipients of an entry."""
    limit = 1 if message.envelope.verp_delims else transport.limits.recipient_limit
    if 0 < limit <= _ALWAYS_FIT:
        return limit
    fitting = _REQUEST_ROOM // max(map(octets, recipients))
    return max(1, min(limit or fitting, fitting))


def offer(destination: Destination) -> None:
    """What waits for a destination has changed, or whether it can take a delivery."""
    if destination.can_take:
        first = destination.first()
        if first is not None and first is not destination.offered:
            destination.offered = first
            heappush(destination.transport.ready, first)


def first_ready(transport: Transport) -> PeerItem | None:
    """The peer to select from, at the top of both heaps; None if nothing may be delivered now."""
    ready = transport.ready
    if not ready or not transport.can_deliver:
        return None
    while ready:
        item = ready[0]
        destination = item[3].destination
        if destination.offered is item:
            if destination.can_take:
                return item
            destination.offered = None  # `offer` is called when that changes
        heappop(ready)
    return None
