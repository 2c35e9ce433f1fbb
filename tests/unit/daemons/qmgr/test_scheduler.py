"""In which order deliveries come."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from daemons.qmgr.jobs import Entry, Transport
from daemons.qmgr.message import Message
from daemons.qmgr.params import TransportLimits
from daemons.qmgr.scheduler import Scheduler
from libmail.ipc.messages import Envelope, Nexthop, QueueId, Recipient
from tests.unit.daemons.qmgr.fakes import limits


class Harness:
    """A scheduler with a clock, one transport and numbered messages."""

    def __init__(self, **settings: float) -> None:
        chosen: TransportLimits = limits(**settings)  # type: ignore[arg-type]
        self.scheduler = Scheduler(lambda name: chosen, dead_time=300, retry_time=60)
        self.transport: Transport = self.scheduler.transport("smtp")
        self.now = 1000.0
        self.messages = 0

    def message(self, **groups: int) -> Message:
        """A message with so many recipients at each destination."""
        self.messages += 1
        message = Message(
            queue_id=QueueId(str(self.messages)),
            envelope=Envelope(sender=""),
            size=1,
            arrival=self.now,
            queued=self.now,
        )
        for name, count in groups.items():
            recipients = [Recipient(f"{n}@{name}") for n in range(count)]
            self.scheduler.add(message, self.transport, name, Nexthop(name), recipients)
        self.scheduler.added(message, [self.transport])
        return message

    def select(self) -> Entry | None:
        return self.scheduler.select(self.transport, self.now)

    def order(self, *, agents: int = 1) -> list[int]:
        """The numbers of the messages, in order of delivery, with so many agents."""
        numbers, busy = list[int](), list[Entry]()
        while True:
            while len(busy) < agents and (entry := self.select()) is not None:
                numbers.append(int(entry.message.queue_id))
                busy.append(entry)
            if not busy:
                return numbers
            self.scheduler.delivered(busy.pop(0), self.now)


def test_connections_are_worth_keeping_when_deliveries_follow_closely() -> None:
    harness = Harness(initial=2)
    for _ in range(4):
        harness.message(a=1)
    first, second = harness.select(), harness.select()
    assert first is not None
    assert second is not None
    destination = first.destination
    assert not destination.in_demand(harness.now)  # a burst
    harness.scheduler.delivered(first, harness.now)
    assert not destination.in_demand(harness.now + 2.0)  # not closely
    third = harness.select()
    assert third is not None
    assert destination.in_demand(harness.now + 1.0)
    assert destination.in_demand(harness.now + 2.0)  # they overlap
    harness.scheduler.delivered(second, harness.now)
    assert not destination.in_demand(harness.now + 2.0)


def test_first_in_first_out() -> None:
    harness = Harness()
    for _ in range(5):
        harness.message(a=1)
    assert harness.order() == [1, 2, 3, 4, 5]


def test_recipients_are_batched() -> None:
    harness = Harness(recipients=50)
    harness.message(a=120)
    sizes = []
    while (entry := harness.select()) is not None:
        sizes.append(len(entry.recipients))
    assert sizes == [50, 50, 20]


def test_without_a_limit_recipients_join_those_that_wait() -> None:
    """They may be more than come later."""
    harness = Harness(recipients=0)
    message = harness.message(a=5)
    later = [Recipient(f"later{n}@a") for n in range(3)]
    harness.scheduler.add(message, harness.transport, "a", Nexthop("a"), later)
    entry = harness.select()
    assert entry is not None
    assert len(entry.recipients) == 8
    assert harness.select() is None


def test_destinations_of_a_message_take_turns() -> None:
    harness = Harness(recipients=1, initial=20)
    harness.message(a=3, b=3)
    names = []
    while (entry := harness.select()) is not None:
        names.append(entry.destination.name)
    assert names == ["a", "b", "a", "b", "a", "b"]


def test_a_small_message_goes_ahead_of_a_big_one() -> None:
    harness = Harness(recipients=1)
    harness.message(a=40)
    assert harness.select() is not None
    harness.message(a=1)
    entry = harness.select()
    assert entry is not None
    assert entry.message.queue_id == "2"


def test_preemption_does_not_starve_the_big_message() -> None:
    harness = Harness(recipients=1, initial=1)
    harness.message(a=50)
    for _ in range(50):
        harness.message(a=1)
    order = harness.order()
    # One free slot for each five deliveries, and a loan of three and a half.
    big = [at for at, number in enumerate(order) if number == 1]
    assert order[0] == 2
    assert len(big) == 50
    assert big[-1] <= 50 * 6 / 5 + 4
    assert order[big[-1] + 1 :] == list(range(order[big[-1] + 1], 52))


def test_no_preemption_below_minimum_delivery_slots() -> None:
    harness = Harness(recipients=1, initial=1)
    harness.message(a=14)
    harness.message(a=1)
    assert harness.order() == [1] * 14 + [2]


def test_blocked_jobs_are_passed_over() -> None:
    harness = Harness(initial=1, limit=1)
    harness.message(a=1)
    harness.message(a=1)
    harness.message(b=1)
    first, second = harness.select(), harness.select()
    assert first is not None
    assert second is not None
    assert (first.message.queue_id, second.message.queue_id) == ("1", "3")
    assert harness.select() is None
    harness.scheduler.delivered(first, harness.now)
    third = harness.select()
    assert third is not None
    assert third.message.queue_id == "2"


def test_dead_destination_returns_what_waits_and_revives() -> None:
    harness = Harness(initial=1)
    harness.message(a=1)
    second = harness.message(a=1)
    entry = harness.select()
    assert entry is not None
    drained = harness.scheduler.destination_failed(entry, "4.4.1 no", harness.now)
    assert [one.message for one in drained] == [second]
    for one in drained:
        harness.scheduler.dropped(one)
    assert harness.scheduler.suspensions.reason(harness.transport, "a") == "4.4.1 no"
    assert harness.scheduler.suspensions.next_wake() == harness.now + 300
    harness.now += 300
    assert harness.scheduler.suspensions.expire(harness.now) == {harness.transport}
    assert harness.scheduler.suspensions.reason(harness.transport, "a") == ""
    assert not harness.transport.destinations


def test_rate_delay() -> None:
    harness = Harness(limit=1, rate_delay=5.0)
    harness.message(a=1)
    harness.message(a=1)
    harness.message(b=1)
    first, other = harness.select(), harness.select()
    assert first is not None
    assert other is not None
    assert other.destination.name == "b"
    harness.scheduler.delivered(first, harness.now)
    assert harness.select() is None
    harness.now += 5
    harness.scheduler.suspensions.expire(harness.now)
    assert harness.select() is not None


def test_transport_rate_delay() -> None:
    harness = Harness(transport_rate_delay=2.0)
    harness.message(a=1)
    harness.message(b=1)
    first = harness.select()
    assert first is not None
    assert harness.select() is None
    harness.scheduler.delivered(first, harness.now)
    assert harness.select() is None
    harness.now += 2
    harness.scheduler.suspensions.expire(harness.now)
    assert harness.select() is not None


def test_cost_of_a_backlog_is_linear() -> None:
    harness = Harness(initial=1, limit=1)
    for _ in range(3000):
        harness.message(a=1)
    assert harness.order() == list(range(1, 3001))
    assert not harness.transport.jobs
    assert not harness.transport.fresh
    assert len(harness.transport.ready) < 10


MESSAGES = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1), max_size=12
)


@settings(max_examples=80, deadline=None)
@given(
    MESSAGES,
    st.lists(st.integers(0, 9), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_every_recipient_has_one_outcome(
    groups: list[dict[str, int]],
    events: list[int],
    batch: int,
    limit: int,
    initial: int,
) -> None:
    """Whatever happens in whatever order; and no limit is exceeded, nobody starves."""
    harness = Harness(recipients=batch, limit=limit, initial=initial)
    scheduler = harness.scheduler
    outcomes: Counter[tuple[str, str]] = Counter()
    messages = [harness.message(**group) for group in groups]
    expected = Counter(
        (message.queue_id, f"{n}@{name}")
        for message, group in zip(messages, groups, strict=True)
        for name, count in group.items()
        for n in range(count)
    )
    busy: list[Entry] = []

    def count(entry: Entry) -> None:
        for recipient in entry.recipients:
            outcomes[entry.message.queue_id, recipient.address] += 1

    def drain(entries: list[Entry]) -> None:
        for entry in entries:
            count(entry)
            scheduler.dropped(entry)

    step = 0
    while step < 5000:
        event = events[step % len(events)]
        step += 1
        entry = harness.select()
        if entry is not None:
            busy.append(entry)
            per_destination: dict[str, int] = defaultdict(int)
            for one in busy:
                per_destination[one.destination.name] += 1
            assert max(per_destination.values()) <= limit
            assert len(entry.recipients) <= batch
        if busy and (entry is None or event > 3):
            ended = busy.pop(event % len(busy))
            count(ended)
            if event == 9:
                drain(scheduler.destination_failed(ended, "4.4.1 x", harness.now))
            elif event == 8 and step % 7 == 0:
                scheduler.aborted(ended, harness.now)
                drain(scheduler.transport_failed(harness.transport, "4.3.0 x", harness.now))
            else:
                scheduler.delivered(ended, harness.now)
        elif entry is None and not busy:
            wake = scheduler.suspensions.next_wake()
            if wake is None:
                break
            harness.now = wake
            scheduler.suspensions.expire(wake)
    assert outcomes == expected
    assert all(message.open == 0 and message.in_core == 0 for message in messages)
    assert harness.transport.in_core == 0
    assert harness.transport.busy == 0
    assert not harness.transport.jobs
