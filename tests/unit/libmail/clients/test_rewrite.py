"""The client of trivial-rewrite(8): what it asks for, and what it remembers."""

from __future__ import annotations

import asyncio

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
from tests.unit.services import PlayedService


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
