"""Threads for what may block: none waits for another, and each is used again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from libmail.privileges import Actor
from libmail.service.workers import Workers


@pytest.mark.parametrize("threads", [True, False])
def test_results_and_errors(*, threads: bool) -> None:
    async def run() -> bool:
        workers = Workers(threads=threads)
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0)
        return await workers.run(threading.get_ident) != threading.get_ident()

    assert asyncio.run(run()) is threads


def test_nothing_waits_for_what_is_stuck() -> None:
    async def run() -> list[bool]:
        workers, answers = Workers(), threading.Event()
        stuck = [asyncio.ensure_future(workers.run(answers.wait)) for _ in range(30)]
        assert await workers.run(lambda: "done") == "done"
        assert not any(one.done() for one in stuck)
        answers.set()
        return await asyncio.gather(*stuck)

    assert asyncio.run(run()) == [True] * 30


def test_threads_are_used_again() -> None:
    async def run() -> set[int]:
        workers = Workers()
        return {await workers.run(threading.get_ident) for _ in range(10)}

    assert len(asyncio.run(run())) == 1


def test_nobody_waits_any_more() -> None:
    async def run() -> str:
        workers, answers = Workers(), threading.Event()
        given_up = asyncio.ensure_future(workers.run(answers.wait))
        await asyncio.sleep(0)
        given_up.cancel()
        answers.set()
        return await workers.run(lambda: "done")

    assert asyncio.run(run()) == "done"


@pytest.mark.parametrize("threads", [True, False])
def test_many_end_together(*, threads: bool) -> None:
    """The loop is told of all that is done, however seldom it is."""

    async def run() -> list[int]:
        workers = Workers(threads=threads)

        async def number(value: int) -> int:
            return await workers.act(lambda _: value)

        return await asyncio.gather(*map(number, range(200)))

    assert asyncio.run(run()) == list(range(200))


@pytest.mark.parametrize("threads", [True, False])
def test_lanes(*, threads: bool) -> None:
    """What is in one lane is done in its order, and never two of it; others do not wait."""

    async def run() -> None:
        workers, go, done = Workers(threads=threads), threading.Event(), list[str]()

        async def add(name: str, lane: str) -> None:
            def work(_: Actor) -> None:
                if threads and name == "a1":
                    go.wait()
                done.append(name)
                if name == "a2":
                    raise ValueError(name)

            await workers.act(work, lane)

        waiting = [asyncio.create_task(add(name, "a")) for name in ("a1", "a2", "a3")]
        await asyncio.sleep(0)
        await add("b1", "b")
        await add("c1", "")
        if threads:
            assert done == ["b1", "c1"]
        go.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in results] == [type(None), ValueError, type(None)]
        assert [name for name in done if name[0] == "a"] == ["a1", "a2", "a3"]
        await add("a4", "a")
        assert done[-1] == "a4"

    asyncio.run(run())


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        workers = Workers()
        monkeypatch.setattr(threading.Thread, "start", none)
        await workers.run(lambda: 1)

    with pytest.raises(OSError, match="temporarily unavailable"):
        asyncio.run(run())
