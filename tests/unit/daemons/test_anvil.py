"""anvil: counts, rates, maxima, and what becomes of the connections of a process that is gone."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons import anvil
from daemons.anvil import Counts
from libmail.clients.anvil import AnvilClient
from libmail.ipc.codec import WireError
from libmail.ipc.messages import ClientCounts, ClientEvent
from libmail.service.connection import Connection, ConnectionLost


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def counts() -> tuple[Counts, Clock]:
    clock = Clock()
    return Counts(60.0, clock, lambda: 0.0), clock


def test_connections_and_rates() -> None:
    one, clock = counts()
    assert one.count("connect", "smtp:a") == ClientCounts(1, 1)
    assert one.count("connect", "smtp:a") == ClientCounts(2, 2)
    assert one.count("message", "smtp:a") == ClientCounts(2, 1)
    assert one.count("connect", "smtp:b") == ClientCounts(1, 1)
    one.disconnect("smtp:a")
    assert one.count("connect", "smtp:a") == ClientCounts(2, 3)
    clock.now += 60
    assert one.report("connect", "smtp:a") == ClientCounts(2, 0)
    assert one.count("connect", "smtp:a") == ClientCounts(3, 1)


def test_a_report_counts_nothing() -> None:
    one, _ = counts()
    assert one.report("newtls", "x:a") == ClientCounts(0, 0)
    one.count("newtls", "x:a")
    assert one.report("newtls", "x:a") == one.report("newtls", "x:a") == ClientCounts(0, 1)


def test_statistics() -> None:
    one, clock = counts()
    for event in ("connect", "connect", "message", "recipient", "newtls", "auth"):
        one.count(event, "smtp:127.0.0.1")
    one.count("connect", "smtp:127.0.0.2")
    lines = [re.sub(r" at \w+ +\d+ [\d:]+$", "", line) for line in one.statistics()]
    assert lines == [
        "max connection rate 2/60s for (smtp:127.0.0.1)",
        "max connection count 2 for (smtp:127.0.0.1)",
        "max message rate 1/60s for (smtp:127.0.0.1)",
        "max recipient rate 1/60s for (smtp:127.0.0.1)",
        "max newtls rate 1/60s for (smtp:127.0.0.1)",
        "max auth rate 1/60s for (smtp:127.0.0.1)",
        "max cache size 2",
    ]
    assert one.statistics() == []
    del clock


def test_clients_are_forgotten() -> None:
    one, clock = counts()
    for number in range(100):
        one.count("message", f"smtp:{number}")
    one.count("connect", "smtp:here")
    one.statistics()
    clock.now += 60
    one.count("message", "smtp:new")
    assert next(line for line in one.statistics() if "cache size" in line).startswith(
        "max cache size 2 "
    )


@pytest.mark.parametrize("request_", [ClientEvent("what", "x"), ClientEvent("connect", "x" * 300)])
def test_nonsense_is_refused(request_: ClientEvent) -> None:
    with pytest.raises(WireError):
        anvil._check(request_)


events = st.tuples(
    st.sampled_from(["connect", "disconnect", "message"]), st.sampled_from(["s:a", "s:b"])
)


@given(st.lists(events, max_size=30))
def test_a_process_takes_no_more_than_it_brought(todo: list[tuple[str, str]]) -> None:
    one, _ = counts()
    one.count("connect", "s:a")  # of another process
    held: Counter[str] = Counter()
    for event, ident in todo:
        anvil._answer(one, held, ClientEvent(event, ident))
    for ident, connections in held.items():
        one.disconnect(ident, connections)
    assert one.report("connect", "s:a").connections == 1
    assert one.report("connect", "s:b").connections == 0


async def over_a_socket(path: Path) -> None:
    one, _ = counts()
    loop = asyncio.get_running_loop()
    sessions: list[asyncio.Task[None]] = []

    async def session(connection: Connection) -> None:
        held: Counter[str] = Counter()
        try:
            while True:
                request = await connection.receive_as(ClientEvent)
                if (answer := anvil._answer(one, held, request)) is not None:
                    connection.send(answer)
        except ConnectionLost:
            for ident, connections in held.items():
                one.disconnect(ident, connections)

    def accept() -> Connection:
        connection = Connection("anvil")
        sessions.append(loop.create_task(session(connection)))
        return connection

    server = await loop.create_unix_server(accept, str(path))
    client = AnvilClient(str(path))
    answers = await asyncio.gather(*(client.count("connect", "s:a") for _ in range(5)))
    assert sorted(answer.connections for answer in answers) == [1, 2, 3, 4, 5]
    client.disconnect("s:a")
    assert (await client.count("message", "s:a")).connections == 4
    client.close()
    await asyncio.gather(*sessions)
    assert one.report("connect", "s:a").connections == 0
    server.close()


def test_one_connection_carries_all(short_tmp: Path) -> None:
    asyncio.run(over_a_socket(short_tmp / "anvil"))


def test_without_anvil_nobody_is_limited(short_tmp: Path) -> None:
    async def ask() -> ClientCounts:
        client = AnvilClient(str(short_tmp / "anvil"))
        client.disconnect("s:a")
        return await client.count("connect", "s:a")

    assert asyncio.run(ask()) == ClientCounts(0, 0)


def test_failed_logins_fill_no_memory() -> None:
    """Whoever tries name after name is counted all the same, for the address, which came first."""
    clock = Clock()
    failures = Counts(60.0, clock, lambda: 0.0, most=3)
    for number in range(10):
        for ident in ("192.0.2.1", f"login:{number}"):
            found = failures.count("authfail", ident)
    assert found == ClientCounts(0, 1)
    assert failures.report("authfail", "192.0.2.1").rate == 10
    assert [line[:16] for line in failures.statistics()] == ["max cache size 3"]
    clock.now += 60
    assert failures.count("authfail", "login:9") == failures.report("authfail", "login:9")
    assert failures.report("authfail", "192.0.2.1").rate == 0
