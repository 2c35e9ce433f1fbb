"""anvil: counts, rates, maxima, what is lent to processes, and what becomes of those that go."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons import anvil
from daemons.anvil import Anvil
from daemons.anvil.counts import Counts, Process
from daemons.anvil.failures import FAILURE, Failures
from libmail.clients.anvil import AnvilClient
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    ClientCounts,
    ClientEvent,
    ClientUse,
    EventNumber,
    EventUse,
)
from libmail.service.connection import Connection, ConnectionLost

UNIT = 60.0


class World:
    """Counts with a clock by hand, and processes that keep what they are asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.counts = Counts(UNIT, self._later, lambda: self.now, lambda: 0.0)
        self.recalled: list[tuple[Process, str, str]] = []
        self.dropped: list[Process] = []

    def _later(self, delay: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, call))

    def process(self) -> Process:
        process = Process(
            lambda ident, event: self.recalled.append((process, ident, event)),
            lambda: self.dropped.append(process),
        )
        return process

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        due = [call for when, call in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for call in due:
            call()

    def asked(self, process: Process, event: str, ident: str, **more: object) -> list[ClientCounts]:
        """The answers to a question: none yet, or one."""
        answers: list[ClientCounts] = []
        limits: Iterable[EventNumber] = more.pop("limits", ())  # type: ignore[assignment]
        present = more.pop("present", 0)
        only_report = more.pop("only_report", False)
        assert not more
        assert isinstance(present, int)
        question = ClientEvent(7, event, ident, present, bool(only_report), tuple(limits))
        self.counts.ask(process, question, answers.append)
        return answers

    def numbers(self, process: Process, event: str, ident: str, **more: object) -> tuple[int, int]:
        """Connections and rate."""
        ((_, connections, rate, _, _),) = self.asked(process, event, ident, **more)
        return connections, rate


def limits(**wanted: int) -> tuple[EventNumber, ...]:
    return tuple(EventNumber(event, number) for event, number in wanted.items())


def used(event: str, number: int, returned: int = 0, ident: str = "s:a") -> ClientUse:
    return ClientUse(ident, 0, (EventUse(event, number, returned),))


# connections, rates, maxima


def test_connections_and_rates() -> None:
    world = World()
    one, other = world.process(), world.process()
    assert world.numbers(one, "connect", "smtp:a", present=1) == (1, 1)
    assert world.numbers(other, "connect", "smtp:a", present=1) == (2, 2)
    assert world.numbers(one, "message", "smtp:a", present=1) == (2, 1)
    assert world.numbers(one, "connect", "smtp:b", present=1) == (1, 1)
    world.counts.take_back(one, ClientUse("smtp:a", 0))
    assert world.numbers(other, "connect", "smtp:a", present=2) == (2, 3)
    world.wait(UNIT)
    assert world.numbers(one, "connect", "smtp:a", only_report=True) == (2, 0)
    assert world.numbers(other, "connect", "smtp:a", present=3) == (3, 1)
    world.counts.forget(other)
    assert world.numbers(one, "connect", "smtp:a", only_report=True) == (0, 1)


def test_an_anvil_that_begins_anew_learns_of_the_connections() -> None:
    world = World()
    one = world.process()
    world.counts.take_back(one, ClientUse("smtp:a", 4))
    assert world.numbers(world.process(), "connect", "smtp:a", present=1) == (5, 1)
    with pytest.raises(WireError):
        world.counts.take_back(one, ClientUse("smtp:a", -1))


def test_a_report_counts_nothing() -> None:
    world = World()
    one = world.process()
    assert world.numbers(one, "newtls", "x:a", only_report=True) == (0, 0)
    world.asked(one, "newtls", "x:a")
    assert world.numbers(one, "newtls", "x:a", only_report=True) == (0, 1)
    assert world.numbers(one, "newtls", "x:a", only_report=True) == (0, 1)


def test_statistics() -> None:
    world = World()
    one = world.process()
    for number, event in enumerate(("connect", "connect", "message", "newtls", "auth"), 1):
        world.asked(one, event, "smtp:127.0.0.1", present=min(number, 2))
    world.asked(one, "message", "smtp:127.0.0.1", present=2, limits=limits(recipient=9))
    world.counts.take_back(one, used("recipient", 3, ident="smtp:127.0.0.1"))
    world.asked(one, "connect", "smtp:127.0.0.2", present=1)
    lines = [re.sub(r" at \w+ +\d+ [\d:]+$", "", line) for line in world.counts.maxima.lines()]
    assert lines == [
        "max connection rate 2/60s for (smtp:127.0.0.1)",
        "max connection count 2 for (smtp:127.0.0.1)",
        "max message rate 2/60s for (smtp:127.0.0.1)",
        "max recipient rate 3/60s for (smtp:127.0.0.1)",
        "max newtls rate 1/60s for (smtp:127.0.0.1)",
        "max auth rate 1/60s for (smtp:127.0.0.1)",
        "max cache size 2",
    ]
    assert world.counts.maxima.lines() == []


def test_clients_are_forgotten() -> None:
    world = World()
    one = world.process()
    for number in range(100):
        world.asked(one, "message", f"smtp:{number}")
    world.asked(one, "connect", "smtp:here", present=1)
    world.counts.maxima.lines()
    world.wait(UNIT)
    world.asked(one, "message", "smtp:new")
    assert "max cache size 2 " in "\n".join(world.counts.maxima.lines())


@pytest.mark.parametrize(
    "question",
    [
        ClientEvent(1, "what", "x"),
        ClientEvent(1, "connect", "x" * 300),
        ClientEvent(1, "connect", "x", limits=limits(what=1)),
        ClientEvent(1, FAILURE, "x", limits=limits(message=1)),
    ],
)
def test_nonsense_is_refused(question: ClientEvent) -> None:
    with pytest.raises(WireError):
        anvil._check(question)


# what is lent


def test_half_of_what_is_left_is_lent_and_less_to_one_of_many() -> None:
    world = World()
    one, other = world.process(), world.process()
    wanted = limits(message=100, recipient=50)
    (found,) = world.asked(one, "connect", "s:a", limits=wanted)
    assert found == ClientCounts(7, 0, 1, 1060.0, limits(message=50, recipient=25))
    world.counts.take_back(one, used("message", 50))
    (found,) = world.asked(one, "message", "s:a", limits=wanted[:1])
    assert (found.rate, found.lent) == (51, limits(message=25))
    (found,) = world.asked(other, "message", "s:a", limits=wanted[:1])
    assert (found.rate, found.lent) == (52, limits(message=5))


def test_what_is_lent_is_asked_back_before_anything_is_refused() -> None:
    world = World()
    one, other = world.process(), world.process()
    world.asked(one, "connect", "s:a", limits=limits(message=4))  # lends 2
    world.asked(other, "message", "s:a", limits=limits(message=4))
    world.asked(other, "message", "s:a", limits=limits(message=4))
    waiting = world.asked(other, "message", "s:a", limits=limits(message=4))
    again = world.asked(other, "message", "s:a", limits=limits(message=4))
    assert waiting == again == []
    assert world.recalled == [(one, "s:a", "message")]
    world.counts.take_back(one, used("message", 1, 1))
    assert [found.rate for found in (*waiting, *again)] == [4, 5]
    world.wait(UNIT)
    assert world.dropped == []


def test_who_does_not_give_back_has_used_all_and_is_dropped() -> None:
    world = World()
    one, other = world.process(), world.process()
    world.asked(one, "connect", "s:a", limits=limits(message=2), present=1)
    world.asked(other, "message", "s:a", limits=limits(message=2))
    waiting = world.asked(other, "message", "s:a", limits=limits(message=2))
    late = world.asked(one, "message", "s:a", limits=limits(message=2), present=1)
    assert waiting == late == []
    world.wait(5.0)
    assert world.dropped == [one]
    assert [found.rate for found in waiting] == [3]
    assert late == []  # nobody is there to hear it
    assert waiting[0].connections == 0


def test_what_a_process_had_left_is_there_for_others_when_it_is_gone() -> None:
    world = World()
    one, other = world.process(), world.process()
    world.asked(one, "connect", "s:a", limits=limits(message=10))  # lends 5
    world.counts.take_back(one, used("message", 2))
    world.counts.forget(one)
    assert world.numbers(other, "message", "s:a") == (0, 3)


def test_a_new_unit_begins_with_nothing_lent() -> None:
    world = World()
    one, other = world.process(), world.process()
    world.asked(one, "connect", "s:a", limits=limits(message=10))
    world.wait(UNIT)
    (found,) = world.asked(other, "message", "s:a", limits=limits(message=10))
    assert (found.rate, found.lent) == (1, limits(message=5))
    # A report of the unit before is no event of this one.
    world.counts.take_back(one, used("message", 5))
    assert world.numbers(other, "message", "s:a", only_report=True) == (0, 1)
    assert world.recalled == []


@pytest.mark.parametrize("use", [(6, 0), (3, 3), (-1, 0), (0, -1)])
def test_nobody_gives_back_what_he_has_not(use: tuple[int, int]) -> None:
    world = World()
    one = world.process()
    world.asked(one, "connect", "s:a", limits=limits(message=10))
    with pytest.raises(WireError):
        world.counts.take_back(one, used("message", *use))
    with pytest.raises(WireError):
        world.counts.take_back(one, used("auth", 1))


# over sockets


async def over_a_socket(path: Path) -> None:
    loop = asyncio.get_running_loop()
    counts = Counts(UNIT, loop.call_later)
    served = Anvil(counts, Failures(UNIT))
    sessions: list[asyncio.Task[None]] = []

    async def session(connection: Connection) -> None:
        with pytest.raises(ConnectionLost):
            await served.serve(connection)

    def accept() -> Connection:
        connection = Connection("anvil")
        sessions.append(loop.create_task(session(connection)))
        return connection

    server = await loop.create_unix_server(accept, str(path))
    clients = [AnvilClient(str(path)) for _ in range(2)]
    accounts = [client.account("s:a", {"message": 6}) for client in clients for _ in range(2)]
    found = [await account.connect() for account in accounts]
    assert [one.connections for one in found] == [1, 2, 3, 4]
    assert len(sessions) == 2
    accounts[0].leave(connected=True)
    taken = 0
    while accounts[1].take("message"):
        taken += 1
    rates = [(await account.ask("message")).rate for account in (*accounts[1:], *accounts[2:])]
    assert [rate for rate in rates if rate > 6] == list(range(7, taken + len(rates) + 1))
    assert (await accounts[2].ask("connect", only_report=True)).connections == 3
    assert [(await clients[0].count(FAILURE, "login:x")).rate for _ in range(2)] == [1, 2]
    assert (await clients[1].count(FAILURE, "login:x", only_report=True)).rate == 2
    clients[0].close()
    await sessions[0]
    assert (await accounts[2].ask("connect", only_report=True)).connections == 2
    clients[1].close()
    await asyncio.gather(*sessions)
    server.close()


def test_processes_share_a_limit(short_tmp: Path) -> None:
    asyncio.run(over_a_socket(short_tmp / "anvil"))


def test_without_anvil_nobody_is_limited(short_tmp: Path) -> None:
    async def ask() -> ClientCounts:
        account = AnvilClient(str(short_tmp / "anvil")).account("s:a", {"message": 1})
        assert not account.take("message")
        await account.connect()
        found = await account.ask("message")
        account.leave(connected=True)
        return found

    assert asyncio.run(ask()) == ClientCounts(0, 0, 0)


# logins


def test_failed_logins_fill_no_memory() -> None:
    """Whoever tries name after name is counted all the same, for the address, which came first."""
    now = [1000.0]
    failures = Failures(UNIT, lambda: now[0], most=3)
    for number in range(10):
        for ident in ("192.0.2.1", f"login:{number}"):
            found = failures.count(ident)
    assert found == 1
    assert failures.number("192.0.2.1") == 10
    now[0] += UNIT
    assert failures.number("192.0.2.1") == 0
    assert failures.count("login:9") == failures.number("login:9") == 1
    assert failures.count("192.0.2.1") == 1


EVENTS = st.tuples(st.sampled_from(["ask", "use", "gone"]), st.integers(0, 2), st.integers(0, 3))


@given(st.lists(EVENTS, max_size=40), st.integers(1, 12))
def test_what_is_counted_and_lent_is_never_more_than_the_limit(
    todo: list[tuple[str, int, int]], limit: int
) -> None:
    world = World()
    processes = [world.process() for _ in range(3)]
    for what, who, number in todo:
        process = processes[who]
        rate = process.leases.get(("s:a", "message"))
        left = 0 if rate is None else rate.lent[process]
        if what == "ask":
            world.asked(process, "message", "s:a", limits=limits(message=limit))
        elif what == "use":
            world.counts.take_back(process, used("message", min(number, left)))
        else:
            world.counts.forget(process)
            processes[who] = world.process()
        for one in processes:
            for lease in one.leases.values():
                assert lease.taken <= limit
