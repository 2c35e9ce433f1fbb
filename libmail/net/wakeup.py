"""A reusable awaitable, with which callbacks of the event loop resume a task: mostly for input.

A future is made anew for each wait, and wakes its task through the loop's queue. A `Wakeup` is made
once, and resumes the task directly from the callback in which data arrives, which is a good part of
the time of a session with dozens of commands.
"""

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import TypeAlias

__all__ = ["Wakeup"]

_Steps: TypeAlias = Generator["Wakeup", None, None]


class Wakeup:
    """One task at a time may `await` it, again and again.

    It has those parts of the interface of asyncio.Future that asyncio.Task uses; where there is no
    get_loop(), that takes the attribute `_loop`.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_error", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._callback: Callable[[Wakeup], object] | None = None
        self._error: BaseException | None = None
        self._loop = loop

    @property
    def waiting(self) -> bool:
        """Whether a task waits."""
        return self._callback is not None

    def wake(self) -> bool:
        """Resume the task that waits; only from a callback of the loop, not from a task.

        Returns whether there was one.
        """
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        callback(self)
        return True

    def fail(self, error: BaseException) -> None:
        """Let the wait of the task end with an error, soon. Does nothing if none waits."""
        if self._callback is not None:
            self._error = error
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        if self._error is not None:  # else it was delivered with something else that woke the task
            self.wake()

    # for the task

    def __await__(self) -> "_Steps":
        """Wait until woken. Raises what `fail` was given."""
        self._asyncio_future_blocking = True
        # What a generator with `yield self` would do, and it does that without a frame.
        steps: _Steps = iter((self,))  # type: ignore[assignment]  # which has no send(), nor needs it
        return steps

    def add_done_callback(
        self, callback: Callable[["Wakeup"], object], *, context: Context | None = None
    ) -> None:
        """Called by the task when it begins to wait; nothing here has context variables."""
        self._callback = callback

    def result(self) -> None:
        """Called by the task when it is woken. Raises what `fail` was given."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def cancel(self, msg: object = None) -> bool:
        """Called when the task is cancelled."""
        del msg
        if self._callback is None:
            return False
        self.fail(asyncio.CancelledError())
        return True
