"""What waits for delivery: transports, destinations, jobs, peers, entries; see the scheduler.

Heap items are never moved: what has changed is pushed again, and the stale item is recognised when
it comes to the top.
"""

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from daemons.qmgr.feedback import Window
from daemons.qmgr.message import Message
from daemons.qmgr.params import TransportLimits
from libmail.ipc.batches import octets
from libmail.ipc.messages import Nexthop, Recipient

__all__ = ["LAST", "Destination", "Entry", "Job", "Peer", "PeerItem", "Transport", "fill",
           "first_ready", "offer", "room_for"]  # fmt: skip

LAST: Final = math.inf
_CLOSELY: Final = 1  # full seconds between deliveries that make a kept connection worth while
_ALWAYS_FIT: Final = 50  # recipients that fit into a request, whatever they are
_REQUEST_ROOM: Final = 1 << 18  # octets of recipients; an entry may get as many again later

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
        self.key: JobKey = (number, LAST)
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


def room_for(message: Message, transport: Transport, recipients: Sequence[Recipient]) -> int:
    """The most recipients of an entry, 0 for no limit."""
    limit = 1 if message.envelope.verp_delims else transport.limits.recipient_limit
    if limit == 0 or limit > _ALWAYS_FIT:
        limit = min(limit or len(recipients), _fitting(recipients)) or 1
    return limit


def _fitting(recipients: Sequence[Recipient]) -> int:
    """How many of such recipients a request to an agent has room for."""
    return _REQUEST_ROOM // max(map(octets, recipients), default=1)


def fill(
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


def offer(destination: Destination) -> None:
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


def first_ready(transport: Transport) -> PeerItem | None:
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
