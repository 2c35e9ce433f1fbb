"""mta-sts(8): when a domain is asked for its policy, when not, and what the client is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from daemons.mta_sts.policies import Policies
from libmail.dns.answers import TempFail
from libmail.log import LOG
from libmail.sts.answer import entry_of, entry_without
from libmail.sts.fetch import FetchFailed
from libmail.sts.kept import KeptPolicy
from libmail.sts.policy import Mode, Policy
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.table import TableFailed, TableOptions, TableRetry

ENFORCE = Policy(Mode.ENFORCE, ("mx.a.test",), 10 * 86400)
TESTING = Policy(Mode.TESTING, ("mx.a.test",), 86400)
DOWN = FetchFailed("sts-policy-fetch-error", "mta-sts.a.test: timed out")
DAY = 86400.0
START = 1_000_000_000


@pytest.fixture(autouse=True)
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/mta-sts")
    return lines


@dataclass
class Domains:
    """ids: by domain; an exception is raised. answer: of all of them. gate: before an answer."""

    ids: dict[str, str | TempFail] = field(default_factory=lambda: {"a.test": "1"})
    answer: Policy | FetchFailed = ENFORCE
    gate: Callable[[], Awaitable[object]] | None = None
    announcements: list[str] = field(default_factory=list)
    fetches: list[str] = field(default_factory=list)

    async def announced(self, domain: str) -> str:
        self.announcements.append(domain)
        await asyncio.sleep(0)
        found = self.ids.get(domain, "")
        if isinstance(found, TempFail):
            raise found
        return found

    async def fetch(self, domain: str) -> Policy:
        self.fetches.append(domain)
        await (asyncio.sleep(0) if self.gate is None else self.gate())
        if isinstance(self.answer, FetchFailed):
            raise self.answer
        return self.answer


class Table(InternalTable):
    broken = False

    async def lookup(self, key: str) -> str | None:
        self._check()
        return await super().lookup(key)

    async def update(self, key: str, value: str) -> None:
        self._check()
        await super().update(key, value)

    async def listing(self) -> AsyncIterator[tuple[str, str]]:
        self._check()
        async for entry in super().listing():
            yield entry

    def _check(self) -> None:
        if self.broken:
            raise TableFailed("internal:x", "broken")


class Bench:
    """Policies with a clock that is set. Begun anew, only the table is left."""

    def __init__(self, domains: Domains | None = None) -> None:
        self.now = float(START)
        self.domains = domains or Domains()
        self.table = Table("internal:x", TableOptions(fold=False))
        self.begin()

    def begin(self, limit: int = 20, patience: float = 60.0) -> None:
        self.policies = Policies(
            self.domains, self.table, limit=limit, patience=patience, clock=lambda: self.now
        )

    async def entry(self, domain: str = "a.test", after: float = 0.0) -> str | None:
        self.now += after
        return await self.policies.entry(domain)

    async def settle(self) -> None:
        """Let what goes on in the background end."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def kept(self, domain: str = "a.test") -> KeptPolicy | None:
        return KeptPolicy.parse(await self.table.lookup(domain))


def test_one_fetch_for_all(logged: list[str]) -> None:
    async def run() -> None:
        bench = Bench()
        found = await asyncio.gather(*(bench.entry() for _ in range(100)))
        assert set(found) == {entry_of("a.test", ENFORCE)}
        assert await bench.entry(after=59) == found[0]
        assert (bench.domains.announcements, bench.domains.fetches) == (["a.test"], ["a.test"])
        assert await bench.kept() == KeptPolicy("1", START, START, ENFORCE)

    asyncio.run(run())
    assert logged == ["a.test: policy fetched: mode=enforce, mx=1, max_age=864000"]


def test_none() -> None:
    """Not announced, or that is not known; or the policy is that there is none."""

    async def run() -> None:
        bench = Bench(Domains({"b.test": TempFail("b.test", "TXT", "try again")}))
        assert [await bench.entry(name) for name in ("a.test", "b.test")] == [None, None]
        assert bench.domains.fetches == []
        bench.domains.ids["c.test"] = "1"
        bench.domains.answer = Policy(Mode.NONE, (), 86400)
        assert await bench.entry("c.test") is None
        assert await bench.kept("c.test") is not None

    asyncio.run(run())


def test_another_id() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.entry()
        bench.domains.answer = TESTING
        assert await bench.entry(after=61) == entry_of("a.test", ENFORCE)
        bench.domains.ids["a.test"] = "2"
        assert await bench.entry(after=61) == entry_of("a.test", TESTING)
        assert len(bench.domains.fetches) == 2

    asyncio.run(run())


def test_what_is_in_force_stays_in_force(logged: list[str]) -> None:
    """Whatever the domain, or somebody in between, says or does: until it is over."""

    async def run() -> None:
        bench = Bench()
        good = await bench.entry()
        bench.domains.answer, bench.domains.ids["a.test"] = DOWN, "2"
        assert await bench.entry(after=61) == good
        bench.begin()  # the process was started again
        assert await bench.entry(after=61) == good
        for found in (TempFail("a.test", "TXT", "x"), ""):
            bench.domains.ids["a.test"] = found
            assert await bench.entry(after=61) == good
        assert await bench.entry(after=9 * DAY) == good
        assert await bench.entry(after=DAY) is None
        bench.domains.ids["a.test"] = "2"
        assert await bench.entry(after=61) == entry_without("a.test", DOWN.kind)

    asyncio.run(run())
    assert logged[1] == (
        "a.test: policy not fetched, the one of before stays in force: mta-sts.a.test: timed out"
    )
    assert "a.test: policy not fetched, none is in force: mta-sts.a.test: timed out" in logged


def test_a_failed_fetch_is_not_repeated_at_once() -> None:
    async def run() -> None:
        bench = Bench(Domains(answer=DOWN))
        without = entry_without("a.test", DOWN.kind)
        for _ in range(4):
            assert await bench.entry(after=61) == without
        assert len(bench.domains.fetches) == 1
        bench.domains.ids["a.test"] = "2"  # somebody does something about it
        await bench.entry(after=61)
        assert len(bench.domains.fetches) == 2
        bench.domains.answer = ENFORCE
        assert await bench.entry(after=301) == entry_of("a.test", ENFORCE)

    asyncio.run(run())


def test_over_in_less_than_a_minute() -> None:
    async def run() -> None:
        bench = Bench(Domains(answer=Policy(Mode.ENFORCE, ("mx.a.test",), 20)))
        await bench.entry()
        bench.domains.ids.clear()
        assert await bench.entry(after=19) is not None
        assert await bench.entry(after=1) is None

    asyncio.run(run())


def test_over_at_once() -> None:
    """A domain cannot have itself asked for each message."""

    async def run() -> None:
        bench = Bench(Domains(answer=Policy(Mode.ENFORCE, ("mx.a.test",), 0)))
        for _ in range(5):
            assert await bench.entry(after=0.9) is not None
        assert len(bench.domains.fetches) == 1
        await bench.entry(after=5)
        assert len(bench.domains.fetches) == 2

    asyncio.run(run())


def test_fetched_again_in_the_background() -> None:
    """Nobody waits for it, long before the policy is over."""

    async def run() -> None:
        bench = Bench()
        await bench.entry()
        gate = asyncio.Event()
        bench.domains.gate = gate.wait
        bench.domains.answer = TESTING
        good = entry_of("a.test", ENFORCE)
        assert await bench.entry(after=DAY) == good
        assert await bench.entry(after=61) == good
        await bench.settle()
        assert len(bench.domains.fetches) == 2
        gate.set()
        await bench.settle()
        assert await bench.entry(after=61) == entry_of("a.test", TESTING)
        bench.domains.answer = DOWN
        assert await bench.entry(after=DAY / 2) == entry_of("a.test", TESTING)
        await bench.settle()
        assert await bench.entry(after=61) == entry_of("a.test", TESTING)
        assert len(bench.domains.fetches) == 3

    asyncio.run(run())


def test_rounds() -> None:
    """Old policies are fetched again where mail goes; those that are over are dropped."""

    async def run() -> None:
        bench = Bench(Domains({f"{name}.test": "1" for name in "abcd"}))
        old, month = int(bench.now - 2 * DAY), int(bench.now - 31 * DAY)
        for name, fetched, used in (("a", old, old), ("b", old, month), ("c", month, month),
                                    ("d", int(bench.now), old)):  # fmt: skip
            kept = KeptPolicy("1", fetched, used, ENFORCE)
            await bench.table.update(f"{name}.test", kept.value())
        bench.policies.refresh()
        bench.policies.refresh()
        await bench.settle()
        assert bench.domains.fetches == ["a.test"]
        assert await bench.kept() == KeptPolicy("1", int(bench.now), old, ENFORCE)
        assert [await bench.kept(f"{name}.test") is None for name in "bcd"] == [False, True, False]
        bench.domains.answer = DOWN
        bench.now += DAY
        bench.policies.refresh()
        await bench.settle()
        assert (await bench.kept() or KeptPolicy("", 0, 0, ENFORCE)).fetched == START

    asyncio.run(run())


def test_use_is_noted_once_a_day() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.entry()
        bench.domains.ids.clear()
        for after, wanted in ((DAY - 1, START), (61, START + 86_460)):
            await bench.entry(after=after)
            assert (await bench.kept() or KeptPolicy("", 0, 0, ENFORCE)).used == wanted

    asyncio.run(run())


def test_only_some_at_a_time(logged: list[str]) -> None:
    """Slow domains do not hold mail to others up for long."""

    async def run() -> None:
        bench = Bench(Domains({f"{n}.test": "1" for n in range(5)}))
        bench.begin(limit=2, patience=0.01)
        gate = asyncio.Event()
        bench.domains.gate = gate.wait
        tasks = [asyncio.create_task(bench.entry(f"{n}.test")) for n in range(5)]
        done, _ = await asyncio.wait(tasks[2:])
        without = {entry_without(f"{n}.test", DOWN.kind) for n in range(2, 5)}
        assert {task.result() for task in done} == without
        gate.set()
        assert await tasks[0] == entry_of("0.test", ENFORCE)
        assert len(bench.domains.fetches) == 2

    asyncio.run(run())
    assert any("too many fetches at once" in line for line in logged)


def test_who_gives_up_does_not_end_it_for_others() -> None:
    async def run() -> None:
        bench = Bench()
        gate = asyncio.Event()
        bench.domains.gate = gate.wait
        first, second = (asyncio.create_task(bench.entry()) for _ in range(2))
        await bench.settle()
        first.cancel()
        await bench.settle()
        gate.set()
        assert await second == entry_of("a.test", ENFORCE)

    asyncio.run(run())


def test_a_cache_that_cannot_be_used(logged: list[str]) -> None:
    """It may have a policy that is in force, so that nobody knows."""

    async def run() -> None:
        bench = Bench()
        bench.table.broken = True
        with pytest.raises(TableRetry):
            await bench.entry()
        bench.policies.refresh()
        await bench.settle()
        bench.table.broken = False
        assert await bench.entry() == entry_of("a.test", ENFORCE)
        bench.domains.ids["b.test"] = "1"

        async def breaks() -> None:
            bench.table.broken = True

        bench.domains.gate = breaks
        assert await bench.entry("b.test") == entry_of("b.test", ENFORCE)

    asyncio.run(run())
    assert any("cache internal:x cleanup: " in line for line in logged)
