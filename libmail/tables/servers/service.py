"""Asking a service of this mail system that has tables: for the types that stand for such a table.

In a program without an event loop, such as postmap(1), an exchange blocks.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final, TypeAlias

from libmail.config.core import Config
from libmail.ipc.blocking import BlockingConnection, ServiceDown
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    CODEC,
    TableDelete,
    TableLookup,
    TableReply,
    TableStatus,
    TableUpdate,
)
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.tables.table import Log, TableFailed, TableOptions, TableRetry

__all__ = ["Request", "TableService"]

_PATIENCE: Final = 100.0  # seconds; a lookup that takes longer is no use to whoever waits for it

Request: TypeAlias = TableLookup | TableUpdate | TableDelete


class TableService:
    """The client of a service that answers with TableReply."""

    def __init__(
        self, spec: str, name: str, service: str, options: TableOptions, *, wait: bool = True
    ) -> None:
        """spec: of the table, for messages. name: what the service calls it. service: its name in
        master.cf. wait: for one that is not up, as long as for an answer."""
        config = options.config
        self._spec = spec
        self._name = name
        self._service = service
        self._log: Log = options.log
        self._path = _socket_path(config, service)
        timeout = min(config.seconds("ipc_timeout"), _PATIENCE)
        self._timeout = timeout
        self.pool = ServicePool(
            self._path,
            idle=config.seconds("ipc_idle"),
            life=config.seconds("ipc_ttl"),
            timeout=timeout,
            wait=wait,
        )
        self._direct: BlockingConnection | None = None  # of a program without an event loop

    async def ask(self, request: Request) -> TableReply:
        """The answer, which is OK or NOKEY. Raises TableRetry."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            reply = self._ask_directly(request)
        else:
            try:
                reply = await self.pool.call(request, TableReply)
            except (ServiceUnavailable, WireError) as error:
                raise TableFailed(self._spec, str(error)) from None
        if reply.status not in (TableStatus.OK, TableStatus.NOKEY):
            raise self.refused(reply.status, reply.value)
        return reply

    def _ask_directly(self, request: Request) -> TableReply:
        kept = self._direct is not None
        try:
            connection = self.connected()
            connection.send_bytes(CODEC.encode(request))
            reply = CODEC.decode(connection.receive_frame())
        except (OSError, WireError, ServiceDown) as error:
            failure = self.lost(error)
            if kept:  # the service may have retired between two keys
                return self._ask_directly(request)
            raise failure from None
        if not isinstance(reply, TableReply):
            raise self.lost(WireError(f"unexpected {type(reply).__name__}"))
        return reply

    def connected(self) -> BlockingConnection:
        """The connection of a program without an event loop. Raises OSError, ServiceDown."""
        if self._direct is None:
            self._direct = BlockingConnection(self._path, self._timeout)
        return self._direct

    def lost(self, error: Exception) -> TableRetry:
        """Drop that connection; the error to raise."""
        self._drop()
        if isinstance(error, ServiceDown):
            return TableFailed(self._spec, f"connect to {self._path}: {error}")
        return TableFailed(self._spec, f"{self._path}: {error}")

    def refused(self, status: int, reason: str) -> TableRetry:
        """The error for an answer that is none. reason: by the service."""
        if status == TableStatus.DENY:
            self._log.warning(f'{self._service} service is not configured for table "{self._name}"')
        return TableFailed(self._spec, reason)

    def _drop(self) -> None:
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def close(self) -> None:
        """Close the connections."""
        self.pool.close()
        self._drop()


def _socket_path(config: Config, service: str) -> str:
    """Relative in daemons, whose working directory is the queue, also behind the jail."""
    path = f"private/{service}"
    queue = config.text("queue_directory")
    try:
        return path if os.path.samefile(".", queue) else f"{queue}/{path}"
    except OSError:
        return f"{queue}/{path}"
