"""Whether one core is too little for a process, so that master(8) may start another one beside it.

A process of this system serves many clients in one thread. That is enough while the thread waits
now and then; one that never waits makes its clients wait, however many cores are idle.
"""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Utilization"]

_BUSY: Final = 0.9
_LONG: Final = 0.5  # seconds over which to measure, at least


class Utilization:
    """Of the calling thread, since the last time that somebody asked. clock: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._time = clock()
        self._used = time.thread_time()
        self.busy = False

    def measure(self) -> bool:
        """Whether the thread computed nearly all of the time since the last measurement.

        The answer of before where that is too short ago to tell.
        """
        now, used = self._clock(), time.thread_time()
        if now - self._time >= _LONG:
            self.busy = used - self._used >= _BUSY * (now - self._time)
            self._time, self._used = now, used
        return self.busy
