"""Work that is done once for all who wait for it, or for nobody."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Generic, TypeVar

__all__ = ["Once"]

T = TypeVar("T")


class Once(Generic[T]):
    """Tasks by key. The work raises nothing that anybody expects."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[T]] = {}

    def begin(
        self, key: str, work: Callable[[], Coroutine[object, object, T]]
    ) -> "asyncio.Task[T]":
        """Have it done, unless that is under way."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(work())
            self._tasks[key] = task
            task.add_done_callback(partial(self._done, key))
        return task

    async def result(self, key: str, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Wait for it; whoever gives up does not end it for others."""
        return await asyncio.shield(self.begin(key, work))

    def _done(self, key: str, _: "asyncio.Task[T]") -> None:
        del self._tasks[key]
