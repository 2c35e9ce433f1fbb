"""The client of anvil(8): what it may allow by itself, and when it has to ask; an anvil that makes
room for another, and one that hangs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.anvil.counts import Counts, Process
from libmail.clients.anvil import Account, AnvilClient
from libmail.ipc.codec import Unframer
from libmail.ipc.messages import (
    CODEC,
    ClientCounts,
    ClientEvent,
    ClientRecall,
    ClientUse,
    EventNumber,
    EventUse,
    Leaving,
)
from tests.unit.waiting import PATIENCE, until

NOTHING = ClientCounts(0, 0, 0)
FOR_EVER = 1e12


def lent(number: int, *, until: float = FOR_EVER, rate: int = 1) -> ClientCounts:
    return ClientCounts(1, 1, rate, until, (EventNumber("message", number),))


class Wire:
    """A transport whose messages are delivered when the test says so, each way in order."""

    def __init__(self) -> None:
        self.sent: deque[object] = deque()
        self._unframer = Unframer(CODEC)
        self.link: asyncio.Protocol | None = None
        self.closed = False

    def connect(self, _: str, link: asyncio.Protocol) -> None:
        """In place of connect_unix."""
        self.link = link
        link.connection_made(self)  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        self._unframer.receive_data(data)
        self.sent.extend(self._unframer)

    def tell(self, *messages: object) -> None:
        """anvil says this, all at once."""
        assert self.link is not None
        self.link.data_received(b"".join(map(CODEC.encode, messages)))

    def close(self) -> None:
        self.closed = True

    abort = close

    def take(self) -> object:
        return self.sent.popleft()


def with_wire(test: Callable[[AnvilClient, Wire], object]) -> None:
    """Run a coroutine with a client whose connection is a Wire."""

    async def main() -> None:
        wire = Wire()
        with mock.patch("libmail.service.link.connect_unix", wire.connect):
            await test(AnvilClient("anvil"), wire)  # type: ignore[misc]

    asyncio.run(main())


async def ask(account: Account, event: str = "message") -> asyncio.Task[ClientCounts]:
    """A question that is on its way."""
    task = asyncio.create_task(account.ask(event))
    await asyncio.sleep(0)
    return task


def test_a_session_asks_once_and_reports_at_its_end() -> None:
    async def session(client: AnvilClient, wire: Wire) -> None:
        account = client.account("s:a", {"message": 20})
        assert not account.take("message")
        asking = asyncio.create_task(account.connect())
        await asyncio.sleep(0)
        wanted = (EventNumber("message", 20),)
        assert wire.take() == ClientEvent(1, "connect", "s:a", 1, False, wanted)
        wire.tell(lent(2))
        await asking
        assert [account.take("message") for _ in range(3)] == [True, True, False]
        assert not wire.sent
        asking = await ask(account)
        assert wire.take() == ClientUse("s:a", 1, (EventUse("message", 2, 0),))
        assert wire.take() == ClientEvent(2, "message", "s:a", 1, False, wanted)
        wire.tell(lent(5)._replace(number=2))
        await asking
        assert account.take("message")
        account.leave(connected=True)
        assert wire.take() == ClientUse("s:a", 0, (EventUse("message", 1, 4),))
        assert not wire.sent

    with_wire(session)


def test_what_is_asked_back_behind_the_answer_that_lent_it() -> None:
    """Both are read at once: the task that asked has not gone on in between."""

    async def session(client: AnvilClient, wire: Wire) -> None:
        account = client.account("s:a", {"message": 20})
        asking = await ask(account)
        wire.take()
        wire.tell(lent(4), ClientRecall("s:a", "message"))
        assert wire.take() == ClientUse("s:a", 0, (EventUse("message", 0, 4),))
        await asking
        assert not account.take("message")
        account.leave(connected=False)
        wire.tell(ClientRecall("s:a", "message"))  # has crossed with the end of the session
        assert list(wire.sent) == [ClientUse("s:a", 0)]

    with_wire(session)


def test_when_the_unit_is_over_nothing_is_left() -> None:
    async def session(client: AnvilClient, wire: Wire) -> None:
        account = client.account("s:a", {"message": 20})
        asking = await ask(account)
        wire.take()
        wire.tell(lent(4, until=0.0))
        await asking
        assert not account.take("message")
        asking = await ask(account)
        assert wire.take() == ClientUse("s:a", 0, (EventUse("message", 0, 4),))
        wire.tell(lent(1)._replace(number=2))
        await asking
        assert account.take("message")

    with_wire(session)


def test_what_was_used_is_reported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmail.clients.anvil._REPORT", 0.0)

    async def session(client: AnvilClient, wire: Wire) -> None:
        account = client.account("s:a", {"message": 20})
        asking = await ask(account)
        wire.take()
        wire.tell(lent(4))
        await asking
        account.take("message")
        account.take("message")
        await until(lambda: bool(wire.sent))
        assert list(wire.sent) == [ClientUse("s:a", 0, (EventUse("message", 2, 0),))]

    with_wire(session)


def test_a_lost_connection_takes_along_what_it_lent() -> None:
    async def session(client: AnvilClient, wire: Wire) -> None:
        account = client.account("s:a", {"message": 20})
        asking = await ask(account)
        wire.tell(lent(4))
        await asking
        assert account.take("message")
        asking = await ask(account)
        assert wire.link is not None
        wire.link.connection_lost(None)
        assert await asking == NOTHING
        assert not account.take("message")
        wire.sent.clear()
        await ask(account)
        assert [type(one) for one in wire.sent] == [ClientEvent]  # nothing to report to a new one

    with_wire(session)


class Exchange:
    """Some processes with one anvil, and messages between them that take their time."""

    def __init__(self, processes: int, limit: int) -> None:
        self.limit = limit
        self.counts = Counts(60.0, lambda *_: None)
        self.wires = [Wire() for _ in range(processes)]
        self.down: list[deque[object]] = [deque() for _ in range(processes)]
        self.known = [self._process(down) for down in self.down]
        self.clients = [AnvilClient(str(number)) for number in range(processes)]
        self.accounts = [client.account("s:a", {"message": limit}) for client in self.clients]
        self.allowed = 0
        self.refused: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    @staticmethod
    def _process(down: deque[object]) -> Process:
        return Process(lambda ident, event: down.append(ClientRecall(ident, event)), lambda: None)

    def connect(self, path: str, link: asyncio.Protocol) -> None:
        self.wires[int(path)].connect(path, link)

    async def attempt(self, who: int) -> None:
        account = self.accounts[who]
        if account.take("message"):
            self.allowed += 1
            return
        rate = (await account.ask("message")).rate
        if rate <= self.limit:
            self.allowed += 1
        else:
            self.refused.append(rate)

    async def step(self, what: str, who: int) -> None:
        """One thing happens."""
        if what == "attempt":
            self.tasks.append(asyncio.create_task(self.attempt(who)))
        elif what == "report":
            self.clients[who]._report()
        elif what == "up" and self.wires[who].sent:
            message = self.wires[who].take()
            if isinstance(message, ClientEvent):
                self.counts.ask(self.known[who], message, self.down[who].append)
            else:
                assert isinstance(message, ClientUse)
                self.counts.take_back(self.known[who], message)
        elif what == "down" and self.down[who]:
            self.wires[who].tell(self.down[who].popleft())
        for _ in range(3):
            await asyncio.sleep(0)

    def possible(self) -> list[tuple[str, int]]:
        """What may happen now, beside further attempts."""
        up = [("up", who) for who, wire in enumerate(self.wires) if wire.sent]
        down = [("down", who) for who, queue in enumerate(self.down) if queue]
        return up + down


@given(st.integers(0, 1 << 32), st.integers(1, 25), st.integers(1, 60))
def test_a_limit_is_exact_in_whatever_order_messages_arrive(
    seed: int, limit: int, attempts: int
) -> None:
    async def main() -> None:
        world = Exchange(4, limit)
        left, chance = attempts, Random(seed)
        with mock.patch("libmail.service.link.connect_unix", world.connect):
            while (steps := world.possible()) or left:
                if left and (not steps or chance.random() < 0.4):
                    steps = [("attempt", chance.randrange(4))]
                    left -= 1
                elif chance.random() < 0.1:
                    steps = [("report", chance.randrange(4))]
                await world.step(*chance.choice(steps))
                assert world.allowed <= limit
        await asyncio.gather(*world.tasks)
        assert world.allowed == min(limit, attempts)
        assert sorted(world.refused) == list(range(limit + 1, attempts + 1))

    asyncio.run(main())


def test_a_process_that_leaves_is_left_alone(tmp_path: Path) -> None:
    """What is on its way is answered, what follows goes to the next process."""
    connections: list[int] = []
    gone: asyncio.Queue[int] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        number = len(connections)
        asked = len(CODEC.encode(ClientEvent(number, "connect", "smtp:192.0.2.1")))
        await reader.readexactly(asked)
        writer.write(CODEC.encode(Leaving()))
        writer.write(CODEC.encode(ClientCounts(number, number, number)))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        gone.put_nowait(1)

    async def main() -> None:
        path = str(tmp_path / "anvil")
        server = await asyncio.start_unix_server(serve, path)
        client = AnvilClient(path)
        async with server:
            for number in (1, 2):
                found = await client.count("connect", "smtp:192.0.2.1")
                assert found == ClientCounts(number, number, number)
            client.close()
            await asyncio.gather(*(gone.get() for _ in connections))

    asyncio.run(main())
    assert len(connections) == 2


def test_a_process_that_hangs_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client would wait at its connection, its messages, and each of their recipients."""
    monkeypatch.setattr("libmail.clients.anvil._PATIENCE", 0.05)
    connections: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    async def main() -> None:
        path = str(tmp_path / "anvil")
        server = await asyncio.start_unix_server(serve, path)
        client = AnvilClient(path)
        async with server:
            for _ in range(5):
                assert await client.count("recipient", "smtp:192.0.2.1") == NOTHING
            assert len(connections) == 1
            monkeypatch.setattr("libmail.clients.anvil._REST", 0.0)
            client = AnvilClient(path)
            async with asyncio.timeout(PATIENCE):
                while len(connections) < 3:
                    await client.count("recipient", "smtp:192.0.2.1")
            client.close()
            for writer in connections:
                writer.close()

    asyncio.run(main())
