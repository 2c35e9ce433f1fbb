"""LMDB files that a daemon changes entry by entry, and how caches in them are cleaned up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from fcntl import LOCK_EX
from pathlib import Path

import lmdb
import pytest

from libmail.tables.builtin.internal import InternalTable
from libmail.tables.disk.lmdb_cache import LmdbCache
from libmail.tables.expiry import LAST_CLEANUP, clean_up
from libmail.tables.table import TableFailed, TableOptions, WritableTable, run_now

OPTIONS = TableOptions(fold=False)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[LmdbCache]:
    table = LmdbCache("lmdb:c", str(tmp_path / "c.lmdb"), OPTIONS)
    yield table
    table.close()


@pytest.fixture
def writes(cache: LmdbCache, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One item for each transaction that changes something."""
    made: list[object] = []
    transaction = cache._transaction

    def counted(work: Callable[[lmdb.Transaction], object], lock: int) -> object:
        if lock == LOCK_EX:
            made.append(work)
        return transaction(work, lock)

    monkeypatch.setattr(cache, "_transaction", counted)
    return made


async def contents(table: WritableTable) -> dict[str, str]:
    return {key: value async for key, value in table.listing()}


def test_thousands_of_changes_at_once_are_a_few_transactions(
    cache: LmdbCache, writes: list[object]
) -> None:
    async def run() -> None:
        changes: list[Awaitable[object]] = []
        for number in range(5000):
            changes.append(cache.update(f"k{number}", str(number)))
            if number % 10 == 0:
                changes.append(cache.delete(f"k{number}"))
        await asyncio.gather(*changes)
        assert len(await contents(cache)) == 4500
        assert 1 <= len(writes) <= 10

    asyncio.run(run())


def test_each_learns_of_its_own_change(cache: LmdbCache) -> None:
    async def run() -> None:
        await cache.update("a", "1")
        found = await asyncio.gather(cache.delete("b"), cache.delete("a"), cache.delete("a"))
        assert list(found) == [False, True, False]

    asyncio.run(run())


def test_without_an_event_loop(cache: LmdbCache) -> None:
    run_now(cache.update("a", "1"))
    assert run_now(cache.lookup("a")) == "1"
    assert run_now(cache.delete("a"))


def test_who_gives_up_takes_nobody_along(cache: LmdbCache) -> None:
    async def run() -> None:
        first = asyncio.create_task(cache.update("a", "1"))
        second = asyncio.create_task(cache.update("b", "2"))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert await contents(cache) in ({"a": "1", "b": "2"}, {"b": "2"})

    asyncio.run(run())


def test_a_failure_is_told_to_all(cache: LmdbCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise TableFailed("lmdb:c", "disk full")

    async def run() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_transaction", fails)
            found = await asyncio.gather(
                cache.update("a", "1"), cache.delete("b"), return_exceptions=True
            )
        assert [str(error) for error in found] == ["table lmdb:c lookup error: disk full"] * 2
        await cache.update("a", "2")
        assert await contents(cache) == {"a": "2"}

    asyncio.run(run())


def test_cleaning_up_is_a_transaction_for_many(cache: LmdbCache, writes: list[object]) -> None:
    async def run() -> None:
        await asyncio.gather(*[cache.update(f"k{at}", str(at)) for at in range(3000)])
        writes.clear()
        found = await clean_up(cache, lambda _, value: int(value) % 3 == 0, 77.7)
        assert (found.retained, found.dropped) == (2000, 1000)
        assert len(writes) <= 3
        left = await contents(cache)
        assert left.pop(LAST_CLEANUP) == "77"
        assert len(left) == 2000
        again = await clean_up(cache, lambda _, value: int(value) % 3 == 0, 78)
        assert again.text() == "cache lmdb:c full cleanup: retained=2000 dropped=0 entries"

    asyncio.run(run())


def test_many_are_written_in_one_transaction(
    cache: LmdbCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[object] = []
    write = cache._write

    async def counted(work: object) -> object:
        writes.append(work)
        return await write(work)  # type: ignore[arg-type]

    async def run() -> None:
        monkeypatch.setattr(cache, "_write", counted)
        await cache.update("a", "old")
        odd = await cache.update_many({"a": "1", "": "2", "b": "3", "x" * 600: "4"})
        assert odd == ["", "x" * 600]
        assert await contents(cache) == {"a": "1", "b": "3"}
        assert len(writes) == 2

    asyncio.run(run())


def test_what_is_renewed_meanwhile_stays(cache: LmdbCache) -> None:
    async def run() -> None:
        await cache.update("a", "old")
        renewing = asyncio.create_task(cache.update("a", "new"))
        await asyncio.sleep(0)
        await cache.delete_many(["a", "gone", ""], lambda _, value: value == "old")
        await renewing
        assert await contents(cache) == {"a": "new"}

    asyncio.run(run())


def test_cleaning_up_other_tables() -> None:
    async def run() -> None:
        table = InternalTable("internal:x", OPTIONS)
        for at in range(10):
            await table.update(f"k{at}", str(at))
        found = await clean_up(table, lambda _, value: int(value) < 4, 5)
        assert (found.retained, found.dropped) == (6, 4)
        assert len(await contents(table)) == 7

    asyncio.run(run())
