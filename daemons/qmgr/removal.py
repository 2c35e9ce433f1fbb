"""The end of messages: a thread puts aside or unlinks their files; the queue manager goes on.

rename(2) and unlink(2) may wait for the file system's journal, for longer than all else that a
message costs here. What becomes due within `_GATHER` seconds is removed in one go: to wake a
thread, and to be woken by it, costs more than an unlink that does not wait. Files that were put
aside for new messages go when there were none for `_SPARE_TIME` seconds.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, TypeVar

from daemons.qmgr.message import Message
from daemons.qmgr.store import Store
from libmail.log import LOG
from libmail.log.events import QueueRemoved
from libmail.service.workers import Workers

__all__ = ["Removal"]

_GATHER: Final = 0.02
_SPARE_TIME: Final = 10.0

T = TypeVar("T")


class Removal:
    """Removes messages whose recipients are all done, and all reports sent."""

    def __init__(
        self,
        store: Store,
        spawn: Callable[[Coroutine[object, object, object]], object],
        gone: Callable[[Message], None],
    ) -> None:
        """gone: told of each message when its file is, or stays in spite of it."""
        self._store = store
        self._spawn = spawn
        self._gone = gone
        self._workers = Workers()
        self._loop = asyncio.get_running_loop()
        self._due: list[Message] = []
        self._rest = asyncio.Event()  # nothing is due
        self._rest.set()
        self._latest = 0.0  # when files were put aside, of the loop's clock
        self._emptying = False  # it is planned

    def add(self, message: Message) -> None:
        """Remove a message, soon."""
        self._due.append(message)
        if self._rest.is_set():
            self._rest.clear()
            self._begin_soon()

    def _begin_soon(self) -> None:
        self._loop.call_later(_GATHER, lambda: self._spawn(self._run()))

    async def _run(self) -> None:
        due, self._due = self._due, []
        removed = await self._in_thread(partial(self._store.remove, due))
        for message, result in zip(due, removed, strict=True):
            if isinstance(result, OSError):
                self._store.keep(message.queue_id, result)
            elif result:
                LOG.event(QueueRemoved(message.queue_id))
            self._gone(message)
        if any(message.reusable for message in due):
            self._empty_later()
        if self._due:
            self._begin_soon()
        else:
            self._rest.set()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await self._workers.run(work)
        except OSError:  # no thread is to be had
            return work()

    def _empty_later(self) -> None:
        self._latest = self._loop.time()
        if not self._emptying:
            self._emptying = True
            self._loop.call_later(_SPARE_TIME, self._empty_when_idle)

    def _empty_when_idle(self) -> None:
        left = self._latest + _SPARE_TIME - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._empty_when_idle)
            return
        self._emptying = False
        self._spawn(self._in_thread(self._store.spare.empty))

    async def end(self) -> None:
        """Wait until everything that is due has been removed, also what was put aside."""
        await self._rest.wait()
        self._store.spare.empty()
