"""verify(8): the cache of results, what is tried, and what bounds both."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemons.verify import SERVICE
from daemons.verify.entry import Entry
from daemons.verify.verifier import Verifier, VerifyParams
from libmail.config import Config, open_config
from libmail.ipc.messages import AddressStatus, VerifyReply
from libmail.log import LOG
from libmail.service.skeleton import Startup
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.disk.lmdb_cache import LmdbCache
from libmail.tables.table import TableFailed, TableOptions
from tests.unit.libmail.clients.fakes import FakeCleanup
from tests.unit.waiting import until

OK, DEFER, BOUNCE, TODO = (int(status) for status in AddressStatus)
PARAMS = Config("").load(VerifyParams)
DAY = 86400.0
TRYING = VerifyReply(TODO, "Address verification in progress")


class World:
    """A verifier with its table, a cleanup that is played, and a clock."""

    def __init__(self, **settings: object) -> None:
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/verify")
        self.now = 1_000_000_000.0
        self.table = InternalTable("internal:x", TableOptions(fold=False))
        self.cleanup = FakeCleanup()
        params = replace(PARAMS, myhostname="mail.test", **settings)  # type: ignore[arg-type]
        self.verifier = Verifier(params, self.table, self.cleanup, lambda: self.now)

    async def ask(self, address: str) -> VerifyReply:
        """A question; the probe that it may lead to has been sent."""
        reply = await self.verifier.query(address)
        for _ in range(5):
            await asyncio.sleep(0)
        return reply

    @property
    def probed(self) -> list[str]:
        return [message.recipients[0] for message in self.cleanup.messages]


def run(test: Callable[[World], Awaitable[None]], **settings: object) -> None:
    async def main() -> None:
        await test(World(**settings))

    asyncio.run(main())


def test_an_unknown_address_is_tried_once() -> None:
    async def test(world: World) -> None:
        assert [await world.ask("a@b.test") for _ in range(3)] == [TRYING] * 3
        (probe,) = world.cleanup.messages
        assert (probe.sender, probe.recipients) == ("double-bounce", ["a@b.test"])
        assert probe.finished
        assert probe.content.startswith(b"Received: by mail.test (Postfix)\r\n\tid 3Q1; ")
        await world.verifier.update("a@b.test", OK, "250 fine")
        assert await world.ask("a@b.test") == VerifyReply(OK, "250 fine")
        assert await world.ask("A@b.test") == TRYING
        assert world.probed == ["a@b.test", "A@b.test"]

    run(test)


@pytest.mark.parametrize(
    ("status", "refresh", "expire"), [(OK, 7 * DAY, 31 * DAY), (BOUNCE, DAY / 8, 3 * DAY)]
)
def test_results_are_refreshed_and_expire(status: int, refresh: float, expire: float) -> None:
    async def test(world: World) -> None:
        await world.verifier.update("a@b", status, "why")
        known = VerifyReply(status, "why")
        world.now += refresh - 1
        assert (await world.ask("a@b"), world.probed) == (known, [])
        world.now += 2
        assert [await world.ask("a@b") for _ in range(2)] == [known] * 2
        assert world.probed == ["a@b"]
        world.now += expire
        assert await world.ask("a@b") == TRYING

    run(test)


def test_a_failed_refresh_does_not_replace_a_good_result() -> None:
    async def test(world: World) -> None:
        await world.verifier.update("a@b", OK, "fine")
        world.now += 8 * DAY
        await world.ask("a@b")
        await world.verifier.update("a@b", DEFER, "connection refused")
        assert await world.ask("a@b") == VerifyReply(OK, "fine")
        assert world.probed == ["a@b", "a@b"]  # and it is tried again
        world.now += 31 * DAY
        await world.verifier.update("a@b", BOUNCE, "gone")
        assert await world.ask("a@b") == VerifyReply(BOUNCE, "gone")

    run(test)


def test_without_negative_cache_a_failure_is_told_once() -> None:
    async def test(world: World) -> None:
        await world.ask("a@b")
        await world.verifier.update("a@b", BOUNCE, "no")
        assert await world.ask("a@b") == VerifyReply(BOUNCE, "no")
        assert await world.ask("a@b") == TRYING
        assert world.probed == ["a@b", "a@b"]
        assert [entry async for entry in world.table.listing()] == []

    run(test, address_verify_negative_cache=False)


def test_a_limit_of_probes() -> None:
    async def test(world: World) -> None:
        assert [await world.ask(f"{n}@b") for n in range(3)] == [TRYING] * 3
        reply = await world.ask("3@b")
        assert reply == VerifyReply(DEFER, "too many addresses are being verified")
        assert await world.ask("2@b") == TRYING
        await world.verifier.update("1@b", OK, "")
        assert await world.ask("3@b") == TRYING
        world.now += 1001  # probes that nobody told of
        assert await world.ask("4@b") == TRYING
        assert world.probed == ["0@b", "1@b", "2@b", "3@b", "4@b"]

    run(test, address_verify_pending_request_limit=3)


def test_cleanup_that_is_down() -> None:
    async def test(world: World) -> None:
        world.cleanup.down = True
        assert await world.ask("a@b") == TRYING
        assert "warning: cannot send a probe: public/cleanup: nobody there" in world.logged
        world.cleanup.down = False
        assert await world.ask("a@b") == TRYING
        assert world.probed == ["a@b"]

    run(test)


def test_a_table_that_fails() -> None:
    async def broken(*_: object) -> None:
        raise TableFailed("internal:x", "broken")

    async def test(world: World) -> None:
        world.table.lookup = broken  # type: ignore[method-assign,assignment]
        world.table.update = broken  # type: ignore[method-assign,assignment]
        assert await world.ask("a@b") == TRYING
        await world.verifier.update("a@b", OK, "fine")
        assert await world.ask("a@b") == VerifyReply(OK, "fine")

    run(test)


def test_who_waits_has_the_outcome_as_soon_as_it_is_told() -> None:
    async def test(world: World) -> None:
        asked = [asyncio.create_task(world.verifier.query("a@b", 1000.0)) for _ in range(3)]
        hasty = await world.ask("a@b")
        assert (hasty, world.probed) == (TRYING, ["a@b"])
        await world.verifier.update("a@b", BOUNCE, "no")
        assert await asyncio.gather(*asked) == [VerifyReply(BOUNCE, "no")] * 3
        assert [entry async for entry in world.table.listing()] == []
        assert await world.ask("a@b") == TRYING  # those that waited have been told

    run(test, address_verify_negative_cache=False)


def test_patience_ends() -> None:
    async def test(world: World) -> None:
        assert await world.verifier.query("a@b", 0.001) == TRYING
        await world.verifier.update("a@b", OK, "fine")
        assert await world.verifier.query("a@b", 0.001) == VerifyReply(OK, "fine")

    run(test)


def test_who_waits_for_a_probe_that_cannot_be_sent_is_told() -> None:
    async def test(world: World) -> None:
        world.cleanup.down = True
        assert await world.verifier.query("a@b", 1000.0) == TRYING

    run(test)


def test_a_failed_refresh_tells_those_that_wait_what_was_known() -> None:
    async def test(world: World) -> None:
        await world.verifier.update("a@b", OK, "fine")
        world.now += 8 * DAY
        await world.ask("a@b")
        world.now += 24 * DAY  # it expires while the probe of the refresh is lost
        asked = asyncio.create_task(world.verifier.query("a@b", 1000.0))
        await until(lambda: len(world.probed) == 2)
        await world.verifier.update("a@b", DEFER, "refused")
        assert await asked == VerifyReply(DEFER, "refused")

    run(test)


class Blackboard(InternalTable):
    """Counts what is written at a time, and holds up the first."""

    def __init__(self) -> None:
        super().__init__("internal:x", TableOptions(fold=False))
        self.sizes: list[int] = []
        self.free = asyncio.Event()

    async def update_many(self, entries: Mapping[str, str]) -> Sequence[str]:
        self.sizes.append(len(entries))
        await self.free.wait()
        odd = [key for key in entries if "odd" in key]
        for key, value in entries.items():
            if key not in odd:
                await self.update(key, value)
        return odd

    async def delete_many(self, keys: Sequence[str], _: object) -> int:
        return sum([await self.delete(key) for key in keys])


def test_results_are_written_together_and_known_before() -> None:
    async def test(world: World) -> None:
        table = world.verifier.results._table = Blackboard()
        addresses = ["first@b", *(f"{number}@b" for number in range(100)), "odd@b"]
        for address in addresses:
            await world.verifier.update(address, OK, "fine")
            await asyncio.sleep(0)
        assert await world.ask("7@b") == VerifyReply(OK, "fine")
        table.free.set()
        await world.verifier.results.written()
        assert table.sizes == [1, 101]
        assert world.verifier.results.entries == 101
        assert len([key async for key, _ in table.listing()]) == 101
        assert await world.ask("odd@b") == VerifyReply(OK, "fine")  # once
        assert await world.ask("odd@b") == TRYING

    run(test)


def test_what_is_not_written_yet_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemons.verify.results._MOST_UNWRITTEN", 10)

    async def test(world: World) -> None:
        table = world.verifier.results._table = Blackboard()
        telling = [
            asyncio.create_task(world.verifier.update(f"{number}@b", OK, ""))
            for number in range(25)
        ]
        for _ in range(100):
            await asyncio.sleep(0)
        assert sum(task.done() for task in telling) == 10
        assert len(world.verifier.results._unwritten) == 10
        table.free.set()
        await asyncio.gather(*telling)
        await world.verifier.results.written()
        assert len([key async for key, _ in table.listing()]) == 25

    run(test)


@pytest.mark.parametrize("address", ["", "x" * 1001])
def test_what_is_no_address_is_not_tried(address: str) -> None:
    async def test(world: World) -> None:
        assert (await world.ask(address)).status == BOUNCE
        assert world.probed == []

    run(test)


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ("0:0:1700000000:250 2.1.5 Ok", Entry(OK, 1700000000, "250 2.1.5 Ok")),
        ("2:1700000001:1700000000:a:b", Entry(BOUNCE, 1700000000, "a:b")),
        ("3:1700000000:0:Address verification in progress", None),
        *((text, None) for text in ("", "0", "0:0:x:y", "9:0:1:", "0:0:1", f"0:0:{10**30}:", None)),
    ],
)
def test_entries_of_a_cache(value: str | None, entry: Entry | None) -> None:
    assert Entry.parse(value) == entry
    if entry is not None:
        assert Entry.parse(entry.value()) == entry


def test_what_has_expired_is_dropped() -> None:
    async def test(world: World) -> None:
        for name, status in (("good", OK), ("bad", BOUNCE)):
            await world.verifier.update(name, status, "")
        await world.table.update("odd", "what is this")
        world.now += 5 * DAY
        task = asyncio.create_task(world.verifier.tidy_for_ever())
        await until(lambda: bool(world.logged))
        task.cancel()
        line = "cache internal:x full cleanup: retained=1 dropped=2 entries"
        assert world.logged == [line]
        assert {key async for key, _ in world.table.listing()} == {
            "good",
            "_LAST_CACHE_CLEANUP_COMPLETED_",
        }

    run(test)


def test_thousands_of_addresses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions, probes and the cache are bounded, whatever comes, and each is answered."""
    most, pending, crowd = 3000, 500, 2000
    monkeypatch.setattr("daemons.verify.results._MOST_ENTRIES", most)

    async def main() -> None:
        world = World(address_verify_pending_request_limit=pending)
        path = str(tmp_path / "verify.lmdb")
        table = world.verifier.results._table = LmdbCache("lmdb:v", path, TableOptions(fold=False))
        verifier = world.verifier
        for round_ in range(4):
            asked = [f"{round_}.{number}@x.test" for number in range(crowd)]
            found = await asyncio.gather(*[verifier.query(address) for address in asked])
            assert sum(reply == TRYING for reply in found) == pending
            assert {reply.status for reply in found} == {TODO, DEFER}
            # more outcomes than questions: agents tell of each, also of what was asked elsewhere
            await asyncio.gather(*[verifier.update(address, OK, "fine") for address in asked])
            await verifier.results.written()
        assert len([key async for key, _ in table.listing()]) == most
        assert (await verifier.query("0.7@x.test")).status == OK
        assert (await verifier.query("3.7@x.test")).status == OK  # which is told once
        assert (await verifier.query("3.7@x.test")) == TRYING
        # The next process knows how many there are.
        again = Verifier(PARAMS, table, world.cleanup, lambda: world.now)
        tidying = asyncio.create_task(again.tidy_for_ever())
        await until(lambda: again.results.entries == most)
        tidying.cancel()
        table.close()

    asyncio.run(main())


def test_the_table_is_made(tmp_path: Path) -> None:
    owner = pwd.getpwuid(os.geteuid()).pw_name
    (tmp_path / "main.cf").write_text(
        f"mail_owner = {owner}\naddress_verify_map = lmdb:{tmp_path}/verify_cache\n"
    )
    prepared = SERVICE.prepare(Startup(open_config(str(tmp_path)), "verify", ()))
    assert (tmp_path / "verify_cache.lmdb").exists()
    prepared.table.close()
