"""proxy:type:name - a table that proxymap(8) has open, for many processes: proxymap(8).

It is opened directly, by this process and before its jail, where its values are sensitive, where
its patterns may not give text of the key, and where master.cf has no proxymap service.

An answer serves for two seconds: a busy smtpd asks for the same recipients and domains again and
again, and one exchange takes longer than the rest of a RCPT command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

from libmail.config.core import Config
from libmail.config.errors import ConfigError
from libmail.config.master_cf import read_master_cf
from libmail.ipc.blocking import ServiceDown
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    CODEC,
    TableDelete,
    TableEntries,
    TableEntry,
    TableList,
    TableLookup,
    TableReply,
    TableStatus,
    TableUpdate,
)
from libmail.net.cache import ExpiringCache
from libmail.service.pool import ServiceUnavailable
from libmail.tables.registry import PROXY, is_pattern, open_with, without_proxy
from libmail.tables.servers.service import TableService
from libmail.tables.table import (
    Table,
    TableConfigError,
    TableFailed,
    TableOptions,
    TableUnsupported,
)

__all__ = ["ProxyTable", "open_named", "open_writable"]

_CACHE_SIZE: Final = 5000
_CACHE_LIFE: Final = 2.0


class ProxyTable:
    """A table behind proxymap or proxywrite."""

    def __init__(
        self, name: str, service: str, options: TableOptions, cache_life: float = _CACHE_LIFE
    ) -> None:
        """name: of the table, without "proxy:". service: its name in master.cf.

        cache_life: seconds for which a daemon uses an answer again.
        """
        self.spec = PROXY + name
        self.pattern = is_pattern(name)
        self._name = name
        self._service = TableService(self.spec, name, service, options)
        self._known: ExpiringCache[str, TableReply] = ExpiringCache(_CACHE_SIZE, cache_life)

    async def lookup(self, key: str) -> str | None:
        """Return what the table says. Raises TableRetry."""
        if not key or "\0" in key:
            return None
        reply = self._known.get(key)
        if reply is None:
            reply = await self._service.ask(TableLookup(self._name, key))
            self._known.put(key, reply)
        return reply.value if reply.status == TableStatus.OK else None

    async def update(self, key: str, value: str) -> None:
        """Set the value of a key. Raises TableRetry."""
        await self._service.ask(TableUpdate(self._name, key, value))

    async def delete(self, key: str) -> bool:
        """Remove a key; tell whether it was there. Raises TableRetry."""
        reply = await self._service.ask(TableDelete(self._name, key))
        return reply.status == TableStatus.OK

    async def listing(self) -> AsyncIterator[tuple[str, str]]:
        """Give all entries. Raises TableRetry."""
        try:
            async with self._service.pool.connection() as connection:
                connection.send(TableList(self._name))
                last = False
                while not last:
                    batch = await self._service.pool.answer(connection, TableEntries)
                    last = batch.last
                    for entry in self._entries(batch):
                        yield entry.key, entry.value
        except ServiceUnavailable as error:
            raise TableFailed(self.spec, str(error)) from None

    def entries(self) -> Iterator[tuple[str, str]]:
        """Give all entries, in a program without an event loop. Raises TableRetry."""
        try:
            connection = self._service.connected()
            connection.send_bytes(CODEC.encode(TableList(self._name)))
            last = False
            while not last:
                batch = CODEC.decode(connection.receive_frame())
                if not isinstance(batch, TableEntries):
                    raise WireError(f"unexpected {type(batch).__name__}")
                last = batch.last
                for entry in self._entries(batch):
                    yield entry.key, entry.value
        except (OSError, WireError, ServiceDown) as error:
            raise self._service.lost(error) from None

    def _entries(self, batch: TableEntries) -> tuple[TableEntry, ...]:
        if batch.status == TableStatus.UNSUPPORTED:
            raise TableUnsupported(f"{self.spec}: {batch.reason}")
        if batch.status != TableStatus.OK:
            raise self._service.refused(batch.status, batch.reason)
        return batch.entries

    def close(self) -> None:
        """Close the connections."""
        self._service.close()


def _has_service(config: Config, service: str) -> bool:
    """Whether master.cf has the service."""
    try:
        entries = read_master_cf(config.directory)
    except ConfigError:
        return False
    return any(entry.type == "unix" and entry.name == service for entry in entries)


def open_named(kind: str, name: str, options: TableOptions) -> Table:
    """Open `proxy:type:name`. Raises TableConfigError."""
    inner = without_proxy(name)
    if ":" not in inner:
        raise TableConfigError(f'open dictionary: expecting "type:name" form instead of "{inner}"')
    service = options.config.text("proxymap_service_name")
    # proxymap(8) does not know what its answers are for.
    direct = options.sensitive or (options.literal and is_pattern(inner))
    if direct or not _has_service(options.config, service):
        return open_with(inner, options)
    return ProxyTable(inner, service, options)


def open_writable(kind: str, name: str, options: TableOptions) -> ProxyTable:
    """Open `proxy:type:name` for changes."""
    service = options.config.text("proxywrite_service_name")
    return ProxyTable(without_proxy(name), service, options, cache_life=0)
