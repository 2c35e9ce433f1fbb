"""Threads for what may block: none waits for another, and each is used again."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from libmail.files.commit import Steps
from libmail.privileges import Actor, Identity
from libmail.service.workers import Job, Workers


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


@pytest.mark.parametrize("threads", [True, False])
def test_steps(tmp_path: Path, *, threads: bool) -> None:
    """Work goes on when its file is on disk; what follows in its lane waits, others do not."""

    async def run() -> list[str]:
        workers, done = Workers(threads=threads), list[str]()

        async def add(name: str, lane: str) -> str:
            def work(_: Actor) -> Steps[str]:
                with open(tmp_path / name, "wb") as file:
                    for number in range(3):
                        done.append(f"{name}{number}")
                        yield file.fileno()
                return name

            return await workers.write(work, lane)

        assert await asyncio.gather(*(add(name, "lane") for name in "abc")) == ["a", "b", "c"]
        assert done == [f"{name}{number}" for name in "abc" for number in range(3)]
        await asyncio.gather(*(add(str(number), "") for number in range(300)))
        return done

    assert len(asyncio.run(run())) == 303 * 3


@pytest.mark.parametrize("threads", [True, False])
def test_steps_hear_of_errors(*, threads: bool) -> None:
    async def run() -> str:
        workers = Workers(threads=threads)
        reader, writer = os.pipe()

        def work(_: Actor) -> Steps[str]:
            try:
                yield writer  # a pipe cannot be on disk
            except OSError as err:
                return str(err.strerror)
            finally:
                os.close(reader)
                os.close(writer)
            return "written"

        def fails(_: Actor) -> Steps[None]:
            yield os.open("/", os.O_RDONLY)
            raise ValueError("later")

        with pytest.raises(ValueError, match="later"):
            await workers.write(fails, "lane")
        return await workers.write(work, "lane")

    assert asyncio.run(run()) == os.strerror(errno.EINVAL)


def test_steps_go_on_as_the_same_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever thread, and whomever that has been meanwhile."""
    acts, mine = threading.local(), os.geteuid()
    user = Identity("somebody", mine + 1, mine + 1, ())

    def become(actor: Actor, who: Identity) -> None:
        acts.user = who

    monkeypatch.setattr(Actor, "become", become)
    monkeypatch.setattr(Actor, "user", property(lambda _: acts.user))

    async def run() -> list[tuple[Identity, Identity]]:
        workers = Workers()

        def work(name: int, who: Identity, actor: Actor) -> Steps[tuple[Identity, Identity]]:
            actor.become(who)
            before = acts.user
            with open(tmp_path / str(name), "wb") as file:
                yield file.fileno()
            return before, acts.user

        def write(name: int) -> Job[tuple[Identity, Identity]]:
            return workers.write(partial(work, name, replace(user, uid=mine + name)))

        async def one(name: int) -> tuple[Identity, Identity]:
            return await write(name)

        return await asyncio.gather(*map(one, range(1, 100)))

    for before, after in asyncio.run(run()):
        assert before is after


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        workers = Workers()
        monkeypatch.setattr(threading.Thread, "start", none)
        await workers.run(lambda: 1)

    with pytest.raises(OSError, match="temporarily unavailable"):
        asyncio.run(run())
