"""Telling qmgr(8) of new mail, and slowing down when it cannot keep up."""

import asyncio
from typing import Final

from libmail.ipc.messages import CODEC, NewMail, QueueId
from libmail.log import LOG
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.service.skeleton import Runtime

__all__ = ["QmgrClient"]

_WAITING: Final = 1000  # notices kept while there is no connection; qmgr finds the rest itself


class QmgrClient:
    """Sends notices over one connection, which is made in the background.

    A notice may get lost: qmgr scans the incoming queue.
    """

    def __init__(self, runtime: Runtime, pool: ServicePool, delay: float) -> None:
        """delay: in_flow_delay, the most seconds that a message waits for qmgr's attention."""
        self._runtime = runtime
        self._pool = pool
        self._delay = delay
        self._connection: Connection | None = None
        self._connecting = False
        self._loop = asyncio.get_running_loop()
        self._due = False  # to `_tell` what waits
        self._waiting: list[QueueId] = []

    def new_mail(self, queue_id: QueueId) -> None:
        """incoming/queue_id is on disk."""
        if len(self._waiting) < _WAITING:
            self._waiting.append(queue_id)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._tell)  # messages that become durable together

    def _tell(self) -> None:
        self._due = False
        if self._connection is not None:
            try:
                self._connection.write(b"".join([CODEC.encode(NewMail(i)) for i in self._waiting]))
            except ConnectionLost:
                self._connection = None
            else:
                self._waiting.clear()
                return
        if not self._connecting and not self._runtime.stopping.is_set():
            self._connecting = True
            self._runtime.spawn(self._connect())

    async def _connect(self) -> None:
        try:
            self._connection = await self._pool.connect()
        except ServiceUnavailable as err:
            LOG.warning(f"{err}")
            self._waiting.clear()
            return
        finally:
            self._connecting = False
        self._tell()

    @property
    def slow(self) -> bool:
        """Whether qmgr does not read its notices."""
        return self._connection is not None and self._connection.write_paused

    async def throttle(self) -> None:
        """Wait while that is so, but not for long."""
        connection = self._connection
        if connection is None or self._delay <= 0:
            return
        try:
            async with asyncio.timeout(self._delay):
                await connection.drain()
        except (TimeoutError, ConnectionLost):
            pass
