"""The watchdog: ends a process whose event loop stands still, so that master(8) starts another.

Postfix has an alarm signal for that. A thread does more: it sees a loop that is caught in Python,
in a system call or in a library, and it takes a machine that slept, or a process that was stopped
and goes on, for neither. It counts its own looks, a tenth of the limit apart, that the loop has
left unanswered; where the whole process had no time, there were none.

While the process has nothing to do, the thread waits for work, and wakes nobody.
"""

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

__all__ = ["Watchdog"]

_LOOKS: Final = 10  # in vain, in the time of the limit


class Watchdog:
    """limit: seconds. ask: call_soon_threadsafe of the loop. busy: whether there are sessions.

    bite: ends the process; it gets the frame in which the event loop stands still. Both run in
    the thread of the watchdog.
    """

    def __init__(
        self,
        limit: float,
        ask: Callable[[Callable[[], None]], object],
        busy: Callable[[], bool],
        bite: Callable[[FrameType | None], None],
    ) -> None:
        self._pause = limit / _LOOKS
        self._ask = ask
        self._busy = busy
        self._bite = bite
        self._watched = threading.get_ident()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch the thread that has made the watchdog, whose loop is to run."""
        self._thread.start()

    def work(self) -> None:
        """There is something to do, which may go wrong."""
        if not self._work.is_set():
            self._work.set()

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            try:
                answered = self._answered()
            except RuntimeError:
                return  # the loop is closed: this is the end of the process
            if not answered:
                self._bite(sys._current_frames().get(self._watched))
                return
            if self._busy():
                self._work.set()
            time.sleep(self._pause)

    def _answered(self) -> bool:
        """Whether the loop still does what it is asked for. Raises RuntimeError if it is closed."""
        answer = threading.Event()
        self._ask(answer.set)
        return any(answer.wait(self._pause) for _ in range(_LOOKS))
