"""The client of trivial-rewrite(8): what it asks for, and what it remembers."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest

from libmail.clients.rewrite import RewriteClient
from libmail.ipc.messages import (
    Nexthop,
    ResolvedMany,
    ResolveFlag,
    ResolveMany,
    ResolveReply,
    ResolveRequest,
    RewriteReply,
    RewriteRequest,
    Transport,
)
from libmail.service.pool import ServiceUnavailable
from tests.unit.services import PlayedService

M = TypeVar("M")


class Service(PlayedService):
    """Answers like trivial-rewrite."""

    def __init__(self) -> None:
        super().__init__(self._reply)

    def _reply(self, request: object) -> object:
        match request:
            case RewriteRequest(_, address):
                return RewriteReply(f"{address}.test")
            case ResolveRequest(_, address):
                return self.reply(address)
            case ResolveMany(_, addresses):
                return ResolvedMany(tuple(map(self.reply, addresses)))
        raise AssertionError(request)

    @staticmethod
    def reply(address: str) -> ResolveReply:
        flags = ResolveFlag.FAIL if address.startswith("fail") else ResolveFlag.DEFAULT
        if address.startswith("any"):
            flags |= ResolveFlag.ANY_SENDER
        return ResolveReply(int(flags), Transport("smtp"), Nexthop("x"), address)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> RewriteClient:
    return RewriteClient(service, life=1000.0)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("a.b@c.test", False),
        ("a+b=c@c-d.e_f.test", False),
        ("a@host", True),
        ("a", True),
        ("a%b@c.test", True),
        ("h!a@c.test", True),
        ('"a b"@c.test', True),
        ("a..b@c.test", True),
        ("a@[192.0.2.1]", True),
        ("a@c.test.", True),
    ],
)
def test_complete_addresses_are_not_asked_for(
    client: RewriteClient, service: Service, address: str, asked: bool
) -> None:
    rewritten = asyncio.run(client.rewrite("local", address))
    assert rewritten == (f"{address}.test" if asked else address)
    assert bool(service.asked) == asked


def test_many_at_a_time(client: RewriteClient, service: Service) -> None:
    async def run() -> None:
        await client.resolve("s@x.test", "known@c.test")
        service.asked.clear()
        wanted = [f"u{n}@c.test" for n in range(501)]
        await client.prefetch(
            "s@x.test", ["known@c.test", "/file", *wanted, "u7@c.test", "fail@c.test"]
        )
        requests = [one for one in service.asked if isinstance(one, ResolveMany)]
        assert [len(one.addresses) for one in requests] == [500, 2]
        service.asked.clear()
        for address in ["known@c.test", *wanted]:
            assert (await client.resolve("s@x.test", address)).recipient == address
        assert service.asked == []
        await client.resolve("s@x.test", "fail@c.test")
        await client.resolve("other@x.test", "u1@c.test")
        assert len(service.asked) == 2

    asyncio.run(run())


def test_an_answer_for_all_senders(client: RewriteClient, service: Service) -> None:
    async def run() -> None:
        assert (await client.resolve("a@x.test", "any@c.test")).recipient == "any@c.test"
        assert (await client.resolve("", "any@c.test")).recipient == "any@c.test"
        assert client.known_route("b@x.test", "any@c.test") is not None
        await client.prefetch("c@x.test", ["any@c.test"])
        assert len(service.asked) == 1
        client.clear()
        assert client.known_route("", "any@c.test") is None

    asyncio.run(run())


class Slow(Service):
    """Answers when `go` is set, and fails the first questions if it is to."""

    def __init__(self, fail: int = 0) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.fail = fail

    async def call(self, request: object, reply: type[M]) -> M:
        await self.go.wait()
        if self.fail:
            self.fail -= 1
            self.asked.append(request)
            raise ServiceUnavailable("no")
        return await super().call(request, reply)


async def ask_together(client: RewriteClient, number: int) -> list[asyncio.Task[ResolveReply]]:
    tasks = [asyncio.ensure_future(client.resolve("", "u@c.test")) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


def test_the_same_question_of_many_is_one_exchange() -> None:
    async def run() -> None:
        service = Slow()
        tasks = await ask_together(RewriteClient(service), 3)
        service.go.set()
        assert {reply.recipient for reply in await asyncio.gather(*tasks)} == {"u@c.test"}
        assert len(service.asked) == 1

    asyncio.run(run())


def test_all_hear_of_a_failure() -> None:
    async def run() -> None:
        service = Slow(fail=1)
        client = RewriteClient(service)
        tasks = await ask_together(client, 3)
        service.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in found] == [ServiceUnavailable] * 3
        assert (await client.resolve("", "u@c.test")).recipient == "u@c.test"
        assert len(service.asked) == 2

    asyncio.run(run())


def test_who_asked_gives_up_and_another_one_asks() -> None:
    async def run() -> None:
        service = Slow()
        first, gone, third, fourth = await ask_together(RewriteClient(service), 4)
        first.cancel()
        gone.cancel()
        for _ in range(3):  # it is noticed, the others hear of it, and one of them asks
            await asyncio.sleep(0)
        service.go.set()
        assert [one.recipient for one in await asyncio.gather(third, fourth)] == ["u@c.test"] * 2
        assert first.cancelled()
        assert len(service.asked) == 1

    asyncio.run(run())
