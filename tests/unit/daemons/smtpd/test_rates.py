"""Limits of connections and rates: whom they hold for, what is counted, what is answered."""

from __future__ import annotations

import asyncio
import time

import pytest

from daemons.smtpd.rates import ClientRates, Limits, RateParams, Rates
from libmail.clients.anvil import Account, AnvilClient
from libmail.ipc.messages import ClientCounts, EventNumber
from libmail.log import LOG
from libmail.lookup.facts import Client
from libmail.smtp.reply import Reply
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions

CLIENT = Client("192.0.2.7", "1025", "host.test")


class FakeAnvil(AnvilClient):
    """Counts by event and client, and lends nothing; every connection stays."""

    def __init__(self) -> None:
        super().__init__("private/anvil")
        self.seen: dict[tuple[str, str], int] = {}

    async def count(self, event: str, ident: str, *, only_report: bool = False) -> ClientCounts:
        number = self.seen.get((event, ident), 0)
        if not only_report:
            number = self.seen[event, ident] = number + 1
        return ClientCounts(0, number, number)

    async def ask(self, account: Account, event: str, *, only_report: bool = False) -> ClientCounts:
        return await self.count(event, account.ident, only_report=only_report)


async def session(one: Rates, client: Client = CLIENT) -> ClientRates:
    found = await one.of(client)
    assert found is not None
    return found


def rates(limits: dict[str, int], exceptions: tuple[str, ...] = ()) -> tuple[Rates, FakeAnvil]:
    limits = dict(limits)
    names = ("auth_rate_limit", "connection_count_limit", "connection_rate_limit",
             "message_rate_limit", "new_tls_session_rate_limit",
             "recipient_rate_limit")  # fmt: skip
    params = RateParams(
        myhostname="mx.test",
        parent_domain_matches_subdomains=(),
        smtpd_client_event_limit_exceptions=exceptions,
        smtpd_client_ipv4_prefix_length=limits.pop("v4", 32),
        smtpd_client_ipv6_prefix_length=limits.pop("v6", 84),
        **{f"smtpd_client_{name}": limits.pop(name, 0) for name in names},
    )
    assert not limits
    allowed = AddressList("exceptions", exceptions, TableOptions(log=LOG))
    anvil = FakeAnvil()
    return Rates(Limits(params, allowed, "smtp"), anvil), anvil


@pytest.fixture
def log() -> list[str]:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtpd")
    return logged


@pytest.mark.parametrize(
    ("exceptions", "limits", "want"),
    [
        ((), {}, False),
        ((), {"recipient_rate_limit": 1}, True),
        (("192.0.2.0/24",), {"message_rate_limit": 1}, False),
        (("host.test",), {"connection_count_limit": 1}, False),
        (("other.test",), {"connection_count_limit": 1}, True),
        (("fail:x",), {"connection_count_limit": 1}, True),
    ],
)
def test_whom_limits_hold_for(
    exceptions: tuple[str, ...], limits: dict[str, int], want: bool, log: list[str]
) -> None:
    found = asyncio.run(rates(limits, exceptions)[0].of(CLIENT))
    assert (found is not None) is want


@pytest.mark.parametrize(
    ("limit", "warning"),
    [
        ("connection_count_limit", "Connection concurrency limit exceeded: 3"),
        ("connection_rate_limit", "Connection rate limit exceeded: 3"),
    ],
)
def test_connections(limit: str, warning: str, log: list[str]) -> None:
    async def connect() -> list[Reply | None]:
        one, _ = rates({limit: 2})
        return [await (await session(one)).connect(CLIENT.shown) for _ in range(3)]

    text = "mx.test Error: too many connections from 192.0.2.7"
    assert asyncio.run(connect()) == [None, None, Reply(421, "4.7.0", text)]
    assert log == [f"warning: {warning} from host.test[192.0.2.7] for service smtp"]


def test_the_number_of_connections_is_told() -> None:
    async def connect(limit: str) -> list[int]:
        one, _ = rates({limit: 5})
        found = [await session(one) for _ in range(2)]
        for each in found:
            await each.connect("")
        return [each.connections for each in found]

    assert asyncio.run(connect("connection_count_limit")) == [1, 2]
    assert asyncio.run(connect("message_rate_limit")) == [0, 0]  # there they are not counted


@pytest.mark.parametrize(
    ("event", "limit", "text", "warning"),
    [
        ("message", "message_rate_limit", "Error: too much mail from 192.0.2.7",
         "Message delivery request rate limit exceeded: 2"),
        ("recipient", "recipient_rate_limit", "Error: too many recipients from 192.0.2.7",
         "Recipient address rate limit exceeded: 2"),
    ],
)  # fmt: skip
def test_rates(event: str, limit: str, text: str, warning: str, log: list[str]) -> None:
    async def twice() -> list[Reply | None]:
        one, _ = rates({limit: 1})
        counted = await session(one)
        return [await getattr(counted, event)("c") for _ in range(2)]

    assert asyncio.run(twice()) == [None, Reply(450, "4.7.1", text)]
    assert log == [f"warning: {warning} from c for service smtp"]


@pytest.mark.parametrize(
    ("address", "lengths", "ident"),
    [
        ("192.0.2.7", {}, "smtp:192.0.2.7"),
        ("192.0.2.7", {"v4": 24}, "smtp:192.0.2.0/24"),
        ("2001:db8::7", {}, "smtp:2001:db8::/84"),
        ("2001:db8::7", {"v6": 128}, "smtp:2001:db8::7"),
        ("unknown", {"v4": 24}, "smtp:unknown"),
    ],
)
def test_networks_count_as_one(address: str, lengths: dict[str, int], ident: str) -> None:
    one, anvil = rates({"connection_count_limit": 9, **lengths})

    async def connect() -> None:
        await (await session(one, Client(address))).connect("")

    asyncio.run(connect())
    assert list(anvil.seen) == [("connect", ident)]


def test_nothing_is_asked_without_limits() -> None:
    """Nor of what has no limit, where something else has."""

    async def main() -> None:
        one, anvil = rates({"auth_rate_limit": 1})
        counted = await session(one)
        assert await counted.message("") is None
        assert await counted.connect("") is None
        assert await counted.may_handshake()
        assert await counted.handshake("") is None
        counted.leave()
        assert anvil.seen == {}

    asyncio.run(main())


def test_nothing_is_asked_of_what_was_lent() -> None:
    async def main() -> None:
        one, anvil = rates({"message_rate_limit": 2, "new_tls_session_rate_limit": 2})
        counted, other = await session(one), await session(one)
        for event in ("message", "newtls"):
            lent = (EventNumber(event, 1),)
            counted._account.lend(ClientCounts(0, 0, 0, time.monotonic() + 1000, lent))
        assert await counted.message("") is None
        assert await other.may_handshake()
        assert await other.handshake("") is None
        assert anvil.seen == {}
        assert await other.message("") is None
        assert anvil.seen == {("message", "smtp:192.0.2.7"): 1}

    asyncio.run(main())


def test_new_tls_sessions(log: list[str]) -> None:
    """The one beyond the limit is told so in TLS; the next are not begun."""

    async def main() -> None:
        one, _ = rates({"new_tls_session_rate_limit": 2})
        counted = await session(one)
        for _ in range(2):
            assert await counted.may_handshake()
            assert await counted.handshake(CLIENT.shown) is None
        refused = await counted.handshake(CLIENT.shown)
        assert refused is not None
        assert refused.line == (
            "421 4.7.0 mx.test Error: too many new TLS sessions from host.test[192.0.2.7]"
        )
        assert not await counted.may_handshake()

    asyncio.run(main())
    what = "New TLS session rate limit exceeded: 3 from host.test[192.0.2.7] for service smtp"
    assert log == [f"warning: {what}"]
