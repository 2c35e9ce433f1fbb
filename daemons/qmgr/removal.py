"""The end of messages: their files are unlinked in a thread, while the queue manager goes on.

unlink(2) may wait for the file system's journal, for longer than all else that a message costs
here. What becomes due within `_GATHER` seconds is unlinked in one go: to wake a thread, and to be
woken by it, costs more than an unlink that does not wait.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

from daemons.qmgr.message import Message
from daemons.qmgr.store import Store
from libmail.log import LOG
from libmail.log.events import QueueRemoved
from libmail.service.workers import Workers

__all__ = ["Removal"]

_GATHER: Final = 0.02


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
        names = [message.queue_id for message in due]
        try:
            removed = await self._workers.run(partial(self._store.remove, names))
        except OSError:  # no thread is to be had
            removed = self._store.remove(names)
        for message, result in zip(due, removed, strict=True):
            if isinstance(result, OSError):
                self._store.keep(message.queue_id, result)
            elif result:
                LOG.event(QueueRemoved(message.queue_id))
            self._gone(message)
        if self._due:
            self._begin_soon()
        else:
            self._rest.set()

    async def end(self) -> None:
        """Wait until everything that is due has been removed."""
        await self._rest.wait()
