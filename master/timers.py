"""What is to happen later, in the order of time."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Timer", "Timers"]


@dataclass(order=True, slots=True)
class Timer:
    """An action that is due at `when`; the clock is monotonic, in seconds."""

    when: float
    order: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class Timers:
    """All that is to happen. clock: tells the time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[Timer] = []
        self._count = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Do it once, later; set `cancelled` in what is returned to prevent that."""
        timer = Timer(self._clock() + seconds, next(self._count), action)
        heapq.heappush(self._heap, timer)
        return timer

    def pause(self) -> float | None:
        """Seconds until the next one is due, None if there is none."""
        while self._heap and self._heap[0].cancelled:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0].when - self._clock()) if self._heap else None

    def run(self) -> None:
        """Do what is due now."""
        now = self._clock()
        while self._heap and self._heap[0].when <= now:
            timer = heapq.heappop(self._heap)
            if not timer.cancelled:
                timer.action()
