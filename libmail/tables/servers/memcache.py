"""memcache:/file - a memcached server, perhaps with a table behind it: memcache_table(5).

The text protocol is spoken here, not by a client library: line_size_limit and data_size_limit bound
what the server may send, and lookups wait in the event loop, many at a time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Final, Generic, NamedTuple, TypeVar

from libmail.dns.native import ServerAddresses
from libmail.log import printable
from libmail.net.endpoint import EndpointOpener, parse_endpoint
from libmail.net.stream_client import LinkError, NotConnected, Opener, Parse, StreamClient
from libmail.tables.queries.client_file import ClientFile
from libmail.tables.queries.templates import Template
from libmail.tables.registry import open_with
from libmail.tables.registry import open_writable as open_backup
from libmail.tables.table import (
    SequenceTable,
    Table,
    TableConfigError,
    TableFailed,
    TableOptions,
    TableRetry,
    TableUnsupported,
    WritableTable,
    key_filter,
    refuse_sensitive,
    usable_value,
)

__all__ = [
    "MemcacheCache",
    "MemcacheTable",
    "Reply",
    "Server",
    "open_named",
    "open_writable",
    "reply_parser",
]

_DEFAULT_SERVER: Final = "inet:localhost:11211"
_LONGEST_KEY: Final = 250  # octets, a limit of memcached
_VALUE: Final = re.compile(rb"VALUE (\S+) [0-9]{1,10} ([0-9]{1,10})(?: [0-9]{1,20})?")
_NO_KEY: Final = re.compile(rb"[\0-\x20\x7f]")
_NO_LISTING: Final = "first/next support requires backup database"
_END: Final = b"\r\nEND\r\n"

T = TypeVar("T", bound=Table)


class Reply(NamedTuple):
    """words: the line, and that of a value its key. data: the value; None: there is none."""

    words: bytes
    data: bytes | None = None


def reply_parser(line_limit: int, data_limit: int) -> Parse[Reply]:
    """For `StreamClient`: takes the reply to a `get`, `set` or `delete`. Limits in octets."""

    def parse(data: bytes) -> tuple[Reply, int] | None:
        end = data.find(b"\r\n", 0, line_limit + 2)
        if end < 0:
            if len(data[: line_limit + 2].removesuffix(b"\r")) > line_limit:
                raise LinkError("a reply line that is too long")
            return None
        line = data[:end]
        if not line.startswith(b"VALUE"):
            return Reply(line), end + 2
        match = _VALUE.fullmatch(line)
        if match is None:
            raise LinkError(f"unexpected reply: {_shown(line)}")
        size, start = int(match[2]), end + 2
        if size > data_limit:
            raise LinkError(f"a value of {size} octets, limit {data_limit}")
        whole = start + size + len(_END)
        if not _END.startswith(data[start + size : whole]):
            raise LinkError("a value of another length than its reply says")
        if len(data) < whole:
            return None
        return Reply(match[1], data[start : start + size]), whole

    return parse


def _shown(data: bytes) -> str:
    return printable(data[:100].decode("utf-8", "surrogateescape"))


class Skipped(Exception):
    """The server is not asked for such a key; the text says why."""


class Server:
    """One memcached server, and which keys it gets."""

    def __init__(
        self, spec: str, name: str, client: ClientFile, options: TableOptions, opener: Opener
    ) -> None:
        """name: of the server, for the log. Raises TableConfigError."""
        self.spec = spec
        self._name = name
        self.options = options
        self._ready = key_filter(spec, options)
        self._template = Template(spec, "key_format", client.text("key_format", "%s"))
        self._domains = client.domains()
        self._stamp = f"{client.int('flags', 0)} {client.int('ttl', 3600)}"
        lines, data = client.int("line_size_limit", 1024, 1), client.int("data_size_limit", 10240)
        self._client: StreamClient[Reply] = StreamClient(
            opener,
            reply_parser(lines, data),
            timeout=client.int("timeout", 2, 1),
            tries=client.int("max_try", 2, 1),
            pause=client.int("retry_pause", 1, 1),
        )

    async def key(self, key: str) -> tuple[str, bytes]:
        """The key for the backup, and the one for the server. Raises Skipped, TableRetry."""
        wanted = self._ready(key)
        if not wanted:
            raise Skipped("empty or malformed key")
        if not await self._domains.allows(wanted):
            raise Skipped("domain mismatch")
        text = self._template.query(wanted)
        if not text:
            raise Skipped("empty lookup key expansion")
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > _LONGEST_KEY or _NO_KEY.search(data):
            raise Skipped("too long, or with white space")
        return wanted, data

    async def get(self, key: bytes) -> str | None:
        """Raises LinkError."""
        reply = await self._client.ask(b"get %s\r\n" % key)
        if reply.data is not None and reply.words == key:
            return reply.data.decode("utf-8", "surrogateescape")
        if reply.words != b"END":
            raise LinkError(f"unexpected reply: {_shown(reply.words)}")
        return None

    async def set(self, key: bytes, value: str) -> None:
        """Raises LinkError."""
        data = value.encode("utf-8", "surrogateescape")
        head = b"set %s %s %d\r\n" % (key, self._stamp.encode(), len(data))
        await self._change(head + data + b"\r\n", b"STORED")

    async def delete(self, key: bytes) -> bool:
        """Raises LinkError."""
        done = await self._change(b"delete %s\r\n" % key, b"DELETED", b"NOT_FOUND")
        return done == b"DELETED"

    async def _change(self, command: bytes, *expected: bytes) -> bytes:
        reply = await self._client.ask(command)
        if reply.data is not None or reply.words not in expected:
            raise LinkError(f"unexpected reply: {_shown(reply.words)}")
        return reply.words

    async def lookup(self, backup: Table | None, key: str) -> str | None:
        """What the server has, or else the backup, which then fills it. Raises TableRetry."""
        try:
            wanted, stored = await self.key(key)
        except Skipped:
            return None
        try:
            value = await self.get(stored)
        except LinkError as error:
            self.complain(error)
            if backup is None:
                raise self.failure(error) from None
            return await backup.lookup(wanted)
        if value is not None or backup is None:
            return value and usable_value(self.spec, key, value, self.options)
        value = await backup.lookup(wanted)
        if value is not None:
            try:
                await self.set(stored, value)
            except LinkError as error:
                self.complain(error)
        return value

    def complain(self, error: LinkError) -> None:
        """A line in the log."""
        if isinstance(error, NotConnected):
            self.options.log.warning(f"connect to {self._name}: {error}")
        else:
            self.options.log.warning(f"database {self.spec}: {error}")

    def complain_of_listing(self) -> None:
        """memcached lists nothing."""
        self.options.log.warning(f"database {self.spec}: {_NO_LISTING}")

    def failure(self, error: LinkError) -> TableRetry:
        """What it is to those who ask."""
        return TableFailed(self.spec, str(error))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class _Memcache(Generic[T]):
    """A server, in front of a table or alone."""

    pattern = False

    def __init__(self, server: Server, backup: T | None) -> None:
        self.spec = server.spec
        self._server = server
        self._backup = backup

    async def lookup(self, key: str) -> str | None:
        """Return what the server has, or else the backup. Raises TableRetry."""
        return await self._server.lookup(self._backup, key)

    def close(self) -> None:
        """Close the connections and the backup."""
        self._server.close()
        if self._backup is not None:
            self._backup.close()


class MemcacheTable(_Memcache[Table]):
    """For lookups."""

    def entries(self) -> Iterator[tuple[str, str]]:
        """Give the entries of the backup."""
        if isinstance(self._backup, SequenceTable):
            return self._backup.entries()
        self._server.complain_of_listing()
        return iter(())


class MemcacheCache(_Memcache[WritableTable]):
    """The same for changes, which are made in both."""

    async def update(self, key: str, value: str) -> None:
        """Set the value of a key. Raises TableRetry."""
        stored = await self._changeable(key, "update")
        if stored is None:
            return
        if self._backup is not None:
            await self._backup.update(key, value)
        try:
            await self._server.set(stored, value)
        except LinkError as error:
            self._failed(error)

    async def delete(self, key: str) -> bool:
        """Remove a key; tell whether it was there. Raises TableRetry."""
        stored = await self._changeable(key, "delete")
        if stored is None:
            return False
        there = self._backup is not None and await self._backup.delete(key)
        try:
            return await self._server.delete(stored) or there
        except LinkError as error:
            self._failed(error)
            return there

    async def _changeable(self, key: str, action: str) -> bytes | None:
        try:
            return (await self._server.key(key))[1]
        except Skipped as error:
            shown = printable(key[:100])
            text = f'{self.spec}: skipping {action} of "{shown}": {error}'
            self._server.options.log.warning(text)
            return None

    def _failed(self, error: LinkError) -> None:
        """Nothing is lost where there is a backup. Raises TableRetry where there is none."""
        self._server.complain(error)
        if self._backup is None:
            raise self._server.failure(error) from None

    async def listing(self) -> AsyncIterator[tuple[str, str]]:
        """Give the entries of the backup. Raises TableUnsupported if there is none."""
        if self._backup is None:
            raise TableUnsupported(f"{self.spec}: {_NO_LISTING}")
        async for entry in self._backup.listing():
            yield entry


def _open(kind: str, name: str, options: TableOptions) -> tuple[Server, str]:
    """The server, and the name of the backup. Raises TableConfigError."""
    spec = f"{kind}:{name}"
    refuse_sensitive(spec, options)
    client = ClientFile(kind, name, options)
    try:
        endpoint = parse_endpoint(client.text("memcache", _DEFAULT_SERVER))
    except ValueError as error:
        raise TableConfigError(f"{spec}: {error}") from None
    opener = EndpointOpener(endpoint, ServerAddresses)
    return Server(spec, str(endpoint), client, options, opener), client.text("backup")


def open_named(kind: str, name: str, options: TableOptions) -> MemcacheTable:
    """Open `memcache:name`. Raises TableConfigError."""
    server, backup = _open(kind, name, options)
    return MemcacheTable(server, open_with(backup, options) if backup else None)


def open_writable(kind: str, name: str, options: TableOptions) -> MemcacheCache:
    """Open `memcache:name` for changes. Raises TableConfigError."""
    server, backup = _open(kind, name, options)
    return MemcacheCache(server, open_backup(backup, options) if backup else None)
