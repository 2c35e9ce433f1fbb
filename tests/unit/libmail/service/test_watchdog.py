"""The watchdog: who is bitten, who is not, and who is left in peace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import FrameType

from libmail.service.watchdog import Watchdog
from tests.unit.waiting import PATIENCE


class Loop:
    """Does what it is asked for at once, or never."""

    def __init__(self, *, stands: bool = False) -> None:
        self._stands = stands
        self.asked = 0

    def ask(self, callback: Callable[[], None]) -> None:
        self.asked += 1
        if not self._stands:
            callback()


def test_a_loop_that_stands_still_is_ended_where_it_does() -> None:
    bitten = threading.Event()
    places: list[str] = []

    def bite(frame: FrameType | None) -> None:
        while frame is not None:
            places.append(frame.f_code.co_name)
            frame = frame.f_back
        bitten.set()

    def stuck() -> None:
        assert bitten.wait(PATIENCE)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        watchdog = Watchdog(0.01, loop.call_soon_threadsafe, lambda: True, bite)
        watchdog.start()
        watchdog.work()
        loop.call_soon(stuck)
        await asyncio.to_thread(bitten.wait, PATIENCE)

    asyncio.run(main())
    assert "stuck" in places


def test_a_loop_that_goes_on_is_not_ended() -> None:
    loop, idle = Loop(), threading.Event()
    rounds = iter([True] * 20)

    def busy() -> bool:
        if next(rounds, False):
            return True
        idle.set()
        return False

    bites: list[FrameType | None] = []
    watchdog = Watchdog(0.01, loop.ask, busy, bites.append)
    watchdog.start()
    watchdog.work()
    assert idle.wait(PATIENCE)
    assert bites == []
    assert loop.asked == 21


def test_without_work_nobody_is_asked() -> None:
    loop = Loop(stands=True)
    bitten = threading.Event()
    watchdog = Watchdog(0.01, loop.ask, lambda: False, lambda _: bitten.set())
    watchdog.start()
    assert loop.asked == 0
    watchdog.work()
    assert bitten.wait(PATIENCE)
    assert loop.asked == 1
