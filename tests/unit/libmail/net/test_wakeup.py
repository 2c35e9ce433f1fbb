"""Waking a task from a callback of the loop."""

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from libmail.net.wakeup import Wakeup


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner


def test_resumes_at_once_and_again(runner: asyncio.Runner) -> None:
    seen: list[tuple[int, bool]] = []

    async def wait(wakeup: Wakeup) -> None:
        for count in range(3):
            await wakeup
            seen.append((count, asyncio.current_task() is not None))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakeup = Wakeup(loop)
        task = loop.create_task(wait(wakeup))
        done = loop.create_future()

        def wake(count: int) -> None:
            assert wakeup.waiting
            wakeup.wake()
            assert len(seen) == count + 1
            if count < 2:
                loop.call_soon(wake, count + 1)
            else:
                done.set_result(None)

        wakeup.wake()  # nobody waits
        loop.call_soon(wake, 0)
        await done
        await task

    runner.run(main())
    assert seen == [(0, True), (1, True), (2, True)]


def test_fails_soon_even_from_a_task(runner: asyncio.Runner) -> None:
    async def wait(wakeup: Wakeup) -> str:
        with pytest.raises(ValueError, match="enough"):
            await wakeup
        await wakeup
        return "woken"

    async def main() -> str:
        loop = asyncio.get_running_loop()
        wakeup = Wakeup(loop)
        wakeup.fail(ValueError("nobody waits"))
        task = loop.create_task(wait(wakeup))
        await asyncio.sleep(0)
        loop.call_soon(wakeup.wake)  # delivers the error first; nothing is woken twice
        wakeup.fail(ValueError("enough"))
        await asyncio.sleep(0.01)
        assert wakeup.waiting
        loop.call_soon(wakeup.wake)
        return await task

    assert runner.run(main()) == "woken"


def test_can_be_cancelled_and_timed_out(runner: asyncio.Runner) -> None:
    async def wait(wakeup: Wakeup, late: asyncio.Event) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wakeup
        late.set()
        await wakeup

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wakeup = Wakeup(loop)
        late = asyncio.Event()
        task = loop.create_task(wait(wakeup, late))
        await late.wait()
        assert wakeup.waiting
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not wakeup.waiting
        assert not wakeup.cancel()

    runner.run(main())
