"""Guessed passwords: what is counted, how long a reply takes, who is turned away, who never is."""

from __future__ import annotations

import asyncio

import pytest

from daemons.smtpd.guessing import Guesses, GuessParams, Judgement
from libmail.log import LOG
from libmail.lookup.facts import Client
from libmail.smtp.reply import Reply
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions
from tests.unit.daemons.smtpd.test_rates import CLIENT, FakeAnvil

SHOWN = "host.test[192.0.2.7]"
AWAY = Reply(421, "4.7.0", "mx.test Error: too many failed logins")
LINE = f"warning: Login failure limit exceeded: %d from {SHOWN} for service submission"


class Forgetful(FakeAnvil):
    """asked: how often."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def count(self, event: str, ident: str, *, only_report: bool = False):  # type: ignore[no-untyped-def]
        self.asked += 1
        return await super().count(event, ident, only_report=only_report)


def guesses(
    limit: int = 30, exceptions: tuple[str, ...] = (), anvil: Forgetful | None = None
) -> tuple[Guesses, Forgetful]:
    anvil = anvil or Forgetful()
    allowed = AddressList("exceptions", exceptions, TableOptions(log=LOG))
    return Guesses(GuessParams("mx.test", limit), allowed, "submission", anvil), anvil


@pytest.fixture
def log() -> list[str]:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtpd")
    return logged


def test_growing_delay(log: list[str]) -> None:
    async def run() -> None:
        one, _ = guesses(limit=10)
        found = [await one.failed(CLIENT, "anna", SHOWN) for _ in range(11)]
        assert [judged.pause for judged in found] == [0, 0, 0, 1, 2, 4, 8, 16, 20, 20, 20]
        assert [judged.reply for judged in found] == [None] * 10 + [AWAY]
        assert await one.refused(CLIENT, SHOWN) == AWAY

    asyncio.run(run())
    assert log == [LINE % 11] * 2


def test_forgotten(log: list[str]) -> None:
    """As soon as anvil has forgotten a client, it may try again; and it is asked no more."""

    async def run() -> None:
        one, anvil = guesses(limit=1)
        for _ in range(2):
            await one.failed(CLIENT, None, SHOWN)
        assert await one.refused(CLIENT, SHOWN) == AWAY
        anvil.seen.clear()
        assert await one.refused(CLIENT, SHOWN) is None
        asked = anvil.asked
        assert await one.refused(CLIENT, SHOWN) is None
        assert anvil.asked == asked

    asyncio.run(run())


def test_others_pay_nothing() -> None:
    """Who has made no mistake, while somebody else guesses."""

    async def run() -> None:
        one, anvil = guesses(limit=1)
        for _ in range(9):
            await one.failed(CLIENT, "anna", SHOWN)
        asked = anvil.asked
        for address in ("192.0.2.8", "2001:db8::1", "unknown"):
            assert await one.refused(Client(address, "1", "other.test"), "other") is None
        assert anvil.asked == asked

    asyncio.run(run())


def test_a_name_from_many_addresses() -> None:
    """Wrong passwords get slow; but no address is turned away before it tries."""

    async def run() -> None:
        one, anvil = guesses(limit=10)
        for number in range(11):
            client = Client(f"192.0.2.{number}", "1", "bot.test")
            found = await one.failed(client, "Anna" if number % 2 else "anna", SHOWN)
            assert await one.refused(client, SHOWN) is None
        assert found == Judgement(20.0, AWAY)
        assert anvil.seen["authfail", "login:anna"] == 11
        assert (await one.failed(Client("192.0.2.99", "1", ""), "bert", SHOWN)).reply is None

    asyncio.run(run())


def test_a_network_counts_as_one() -> None:
    async def run() -> None:
        one, anvil = guesses(limit=3)
        for number in range(4):
            await one.failed(Client(f"2001:db8:1:2:{number}::1", "1", ""), None, SHOWN)
        assert anvil.seen == {("authfail", "2001:db8:1:2::/64"): 4}
        assert await one.refused(Client("2001:db8:1:2:ffff::", "1", ""), SHOWN) == AWAY
        assert await one.refused(Client("2001:db8:1:3::", "1", ""), SHOWN) is None

    asyncio.run(run())


@pytest.mark.parametrize(("limit", "exceptions"), [(0, ()), (1, ("192.0.2.0/24",))])
def test_not_counted(limit: int, exceptions: tuple[str, ...]) -> None:
    async def run() -> None:
        one, anvil = guesses(limit, exceptions)
        for _ in range(9):
            assert await one.failed(CLIENT, "anna", SHOWN) == Judgement(0.0, None)
        assert anvil.asked == 0

    asyncio.run(run())
