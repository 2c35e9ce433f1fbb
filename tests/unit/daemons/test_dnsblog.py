"""dnsblog(8), and its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemons.dnsblog import DnsLists
from libmail.clients.dnsblog import DnsblogClient
from libmail.dns.answers import DnsAnswer, DnsRecord, NotFound, TempFail
from libmail.dns.resolver import Resolver
from libmail.ipc.codec import WireError
from libmail.ipc.messages import DnsListAnswer
from libmail.log import LOG
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServiceUnavailable
from tests.unit.waiting import PATIENCE


class Names(Resolver):
    """A resolver that knows some names. slow: those whose answer never comes."""

    def __init__(self, known: dict[str, list[str]], slow: tuple[str, ...] = ()) -> None:
        self._known = known
        self._slow = slow

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        if name in self._slow:
            await asyncio.sleep(1000)
        if name.endswith(".broken.test"):
            raise TempFail(name, rrtype, "no answer")
        if name not in self._known:
            raise NotFound(name, rrtype, "not found")
        records = tuple(DnsRecord(name, "A", 300, value) for value in self._known[name])
        return DnsAnswer(name, name, rrtype, records, False, 300)


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/dnsblog")
    return lines


def run(lists: DnsLists, talk: Callable[[], Awaitable[None]]) -> None:
    """Do something, while dnsblog serves at private/dnsblog."""

    async def session(connection: Connection) -> None:
        try:
            await lists.serve(connection)
        except (ConnectionLost, WireError):
            connection.abort()

    async def main() -> None:
        tasks: set[asyncio.Task[None]] = set()

        def accept() -> Connection:
            connection = Connection("dnsblog", serving=True)
            tasks.add(asyncio.get_running_loop().create_task(session(connection)))
            return connection

        server = await asyncio.get_running_loop().create_unix_server(accept, "dnsblog")
        try:
            await asyncio.wait_for(talk(), PATIENCE)
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)

    asyncio.run(main())


def test_lists_of_a_client(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.chdir(short_tmp)
    names = Names(
        {
            "1.2.0.192.a.test": ["127.0.0.2", "127.0.0.4"],
            "1.2.0.192.public.test": ["127.255.255.254"],
            f"1.{'0.' * 23}8.b.d.0.1.0.0.2.a.test": ["127.0.0.9"],
        }
    )

    async def talk() -> None:
        client = DnsblogClient("dnsblog", PATIENCE)
        domains = ["a.test", "b.test", "broken.test", "public.test"]
        for _ in range(2):  # the second time over the same connection
            found = [answer async for answer in client.ask("192.0.2.1", domains)]
            assert sorted(found) == [
                DnsListAnswer("a.test", 300, ("127.0.0.2", "127.0.0.4")),
                DnsListAnswer("b.test", -1, ()),
                DnsListAnswer("broken.test", 0, ()),
                DnsListAnswer("public.test", 300, ()),
            ]
        found = [answer async for answer in client.ask("2001:db8::1", ["a.test"])]
        assert found == [DnsListAnswer("a.test", 300, ("127.0.0.9",))]
        with pytest.raises(ServiceUnavailable):
            assert [answer async for answer in client.ask("no address", ["a.test"])]

    run(DnsLists(names, 0.0), talk)
    assert logged[:3].count("addr 192.0.2.1 listed by domain a.test as 127.0.0.2") == 1
    assert "addr 2001:db8::1 listed by domain a.test as 127.0.0.9" in logged
    assert sum("DNS list public.test refuses to answer us" in line for line in logged) == 1
    assert not any("127.255.255.254" in line for line in logged)


def test_what_a_hostile_list_says_is_bounded(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.chdir(short_tmp)
    names = Names({"1.2.0.192.a.test": [f"127.0.{at >> 8}.{at & 255}" for at in range(4000)]})

    async def talk() -> None:
        client = DnsblogClient("dnsblog", PATIENCE)
        (found,) = [answer async for answer in client.ask("192.0.2.1", ["a.test"])]
        assert len(found.addresses) == 100
        with pytest.raises(ServiceUnavailable):
            assert [answer async for answer in client.ask("no address", ["a.test"])]

    run(DnsLists(names, 0.0), talk)
    assert len(logged) == 100


def test_a_slow_list_holds_up_no_other(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.chdir(short_tmp)
    names = Names({"1.2.0.192.a.test": ["127.0.0.2"]}, slow=("1.2.0.192.slow.test",))
    seen: list[DnsListAnswer] = []

    async def collect() -> None:
        client = DnsblogClient("dnsblog", 0.2)
        async for answer in client.ask("192.0.2.1", ["slow.test", "a.test"]):
            seen.append(answer)

    async def talk() -> None:
        with pytest.raises(ServiceUnavailable):
            await collect()

    run(DnsLists(names, 0.0), talk)
    assert seen == [DnsListAnswer("a.test", 300, ("127.0.0.2",))]


def test_nobody_answers(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short_tmp)

    async def talk() -> None:
        with pytest.raises(ServiceUnavailable):
            assert [answer async for answer in DnsblogClient("nobody", 1.0).ask("1.1.1.1", ["a"])]

    asyncio.run(talk())
