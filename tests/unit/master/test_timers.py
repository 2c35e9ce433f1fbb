"""What happens later, with a clock that the test turns."""

from functools import partial

from master.timers import Timers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_timers_run_in_order_and_once() -> None:
    clock = Clock()
    done: list[object] = []
    timers = Timers(clock)
    assert timers.pause() is None
    for seconds in (5.0, 1.0, 3.0, 1.0):
        timers.after(seconds, partial(done.append, seconds))
    assert timers.pause() == 1.0
    clock.now += 3.0
    timers.run()
    assert done == [1.0, 1.0, 3.0]
    assert timers.pause() == 2.0
    clock.now += 10.0
    assert timers.pause() == 0.0
    timers.run()
    assert done == [1.0, 1.0, 3.0, 5.0]
    assert timers.pause() is None


def test_a_cancelled_timer_does_nothing() -> None:
    clock = Clock()
    done: list[object] = []
    timers = Timers(clock)
    timers.after(1.0, lambda: done.append("first")).cancelled = True
    timers.after(2.0, lambda: done.append("second"))
    assert timers.pause() == 2.0
    clock.now += 2.0
    timers.run()
    assert done == ["second"]


def test_an_action_may_set_its_timer_again() -> None:
    clock = Clock()
    done: list[object] = []
    timers = Timers(clock)

    def again() -> None:
        done.append(clock.now)
        timers.after(60.0, again)

    timers.after(0.0, again)
    for _ in range(3):
        timers.run()
        clock.now += 60.0
    assert done == [1000.0, 1060.0, 1120.0]
