"""Lookups of drivers that block: in threads of an event loop, or directly without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from libmail.tables.table import TableRetry, run_now
from libmail.tables.worker import Worker

SPEC = "mysql:/etc/postfix/x.cf"


class Driver:
    """Counts what is made for threads, and where."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.stopped: list[int] = []
        self.ended = threading.Event()

    def start(self) -> int:
        self.started.append(threading.get_ident())
        return threading.get_ident()

    def stop(self, state: int) -> None:
        assert state == threading.get_ident()
        self.stopped.append(state)
        self.ended.set()


def worker(driver: Driver, threads: int = 1, waiting: int = 100) -> Worker[int]:
    return Worker(SPEC, driver.start, driver.stop, threads=threads, waiting=waiting, timeout=60.0)


def where(state: int) -> tuple[int, int]:
    return state, threading.get_ident()


def test_without_a_loop_it_runs_directly() -> None:
    driver = Driver()
    one = worker(driver)
    assert run_now(one.run(where)) == (threading.get_ident(), threading.get_ident())
    assert run_now(one.run(lambda state: "found")) == "found"
    one.close()
    assert driver.started == driver.stopped == [threading.get_ident()]


def test_in_a_loop_one_thread_has_its_own_state() -> None:
    async def main() -> None:
        driver = Driver()
        one = worker(driver)
        assert driver.started == []
        answers = [await one.run(where) for _ in range(3)]
        answers += await asyncio.gather(*(one.run(where) for _ in range(5)))
        assert {state for state, _ in answers} == {thread for _, thread in answers}
        assert len(driver.started) == 1
        assert driver.started[0] != threading.get_ident()
        one.close()
        await asyncio.to_thread(driver.ended.wait, 60)
        assert driver.stopped == driver.started

    asyncio.run(main())


def test_more_threads_begin_when_lookups_wait() -> None:
    async def main() -> None:
        driver = Driver()
        one = worker(driver, threads=3)
        await one.run(where)
        await one.run(where)
        assert len(driver.started) == 1
        together = threading.Barrier(3)
        answers = await asyncio.gather(
            *(one.run(lambda state: (together.wait(60), state)[1]) for _ in range(3))
        )
        assert len(set(answers)) == len(driver.started) == 3
        one.close()

    asyncio.run(main())


def fail_with(error: Exception) -> Callable[[int], str]:
    def work(state: int) -> str:
        raise error

    return work


def test_what_the_work_raises_is_raised() -> None:
    async def main() -> None:
        one = worker(Driver())
        with pytest.raises(TableRetry, match="server is down"):
            await one.run(fail_with(TableRetry("server is down")))
        assert await one.run(lambda state: "up again") == "up again"
        one.close()

    asyncio.run(main())
    with pytest.raises(TableRetry, match="server is down"):
        run_now(worker(Driver()).run(fail_with(TableRetry("server is down"))))


def test_a_start_that_fails_is_tried_again() -> None:
    attempts: list[int] = []

    def start() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise TableRetry("not yet")
        return 0

    async def main() -> None:
        one: Worker[int] = Worker(SPEC, start)
        with pytest.raises(TableRetry, match="not yet"):
            await one.run(where)
        assert (await one.run(where))[0] == 0
        one.close()

    asyncio.run(main())


def test_a_slow_lookup_is_given_up() -> None:
    async def main() -> None:
        done, began = threading.Event(), threading.Event()
        one: Worker[None] = Worker(SPEC, lambda: None, timeout=0.01)

        def stuck(_: None) -> None:
            began.set()
            done.wait(60)

        while not began.is_set():  # the thread may begin after the time limit
            with pytest.raises(TableRetry, match=f"^table {SPEC} lookup error: no answer in 0.01"):
                await one.run(stuck)
        late: list[int] = []
        with pytest.raises(TableRetry):
            await one.run(lambda _: late.append(1))
        done.set()
        one.close()
        assert late == []

    asyncio.run(main())


def test_only_so_many_lookups_wait() -> None:
    async def main() -> None:
        done, running = threading.Event(), threading.Event()
        one = worker(Driver(), waiting=2)

        def work(state: int) -> bool:
            running.set()
            return done.wait(60)

        first = asyncio.create_task(one.run(work))
        await asyncio.to_thread(running.wait, 60)
        others = [asyncio.create_task(one.run(work)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TableRetry, match="too many lookups are waiting"):
            await one.run(work)
        done.set()
        assert await asyncio.gather(first, *others) == [True, True, True]
        one.close()

    asyncio.run(main())


def test_whoever_gives_up_does_not_disturb_others() -> None:
    async def main() -> None:
        done, running = threading.Event(), threading.Event()
        one = worker(Driver())

        def work(state: int) -> bool:
            running.set()
            return done.wait(60)

        first = asyncio.create_task(one.run(work))
        await asyncio.to_thread(running.wait, 60)
        second = asyncio.create_task(one.run(work))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        done.set()
        assert await one.run(lambda state: "next") == "next"
        one.close()

    asyncio.run(main())


def test_rest_after_a_while_without_lookups() -> None:
    async def main() -> None:
        driver = Driver()
        rested = threading.Event()
        states: list[int] = []

        def rest(state: int) -> None:
            states.append(state)
            rested.set()

        one = Worker(SPEC, driver.start, driver.stop, idle=0.001, rest=rest)
        thread, _ = await one.run(where)
        await asyncio.to_thread(rested.wait, 60)
        assert (await one.run(where))[0] == thread
        assert set(states) == {thread}
        one.close()

    asyncio.run(main())
