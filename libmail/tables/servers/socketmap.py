"""socketmap:inet:host:port:name, socketmap:unix:path:name - netstrings: socketmap_table(5)."""

from __future__ import annotations

from typing import Final

from libmail.config.errors import ConfigError
from libmail.dns.native import ServerAddresses
from libmail.log import printable
from libmail.net.endpoint import EndpointOpener, parse_endpoint
from libmail.net.stream_client import LinkError, NotConnected, Opener, Parse, StreamClient
from libmail.tables.table import (
    TableConfigError,
    TableFailed,
    TableOptions,
    key_filter,
    refuse_sensitive,
    usable_value,
)
from libmail.text.netstrings import netstring

__all__ = ["SocketmapTable", "netstring_parser", "open_named"]

_TIMEOUT: Final = 100.0
_ERRORS: Final = {b"TEMP": "temporary", b"TIMEOUT": "timeout", b"PERM": "permanent"}


def netstring_parser(limit: int) -> Parse[bytes]:
    """For `StreamClient`: takes one netstring of at most `limit` octets."""
    digits = len(str(limit))

    def parse(data: bytes) -> tuple[bytes, int] | None:
        number, colon, _ = data[: digits + 2].partition(b":")
        if number and not number.isdigit():
            raise LinkError("input format error")
        if len(number) > digits or int(number or 0) > limit:
            raise LinkError("input exceeds size limit")
        if not colon:
            return None
        if not number:
            raise LinkError("input format error")
        start = len(number) + 1
        end = start + int(number)
        if len(data) <= end:
            return None
        if data[end : end + 1] != b",":
            raise LinkError("input format error")
        return data[start:end], end + 1

    return parse


class SocketmapTable:
    """One of the tables of a server that speaks the protocol of socketmap_table(5)."""

    pattern = True

    def __init__(
        self, spec: str, server: str, name: str, opener: Opener, options: TableOptions
    ) -> None:
        """server: how warnings name it. name: of the table, for it. Raises ConfigError."""
        self.spec = spec
        self._server = server
        self._name = name.encode("utf-8", "surrogateescape")
        self._options = options
        self._ready = key_filter(spec, options, pattern=True)
        limit = options.config.size("socketmap_max_reply_size")
        self._longest = options.config.size("socketmap_max_query_size")
        self._client: StreamClient[bytes] = StreamClient(
            opener, netstring_parser(limit), timeout=_TIMEOUT
        )

    async def lookup(self, key: str) -> str | None:
        """Return what the server has for the key, or None. Raises TableRetry."""
        wanted = self._ready(key)
        if not wanted:
            return None
        data = wanted.encode("utf-8", "surrogateescape")
        if len(data) > self._longest:
            problem = f"query exceeds socketmap_max_query_size ({self._longest})"
            self._options.log.warning(f'{self.spec}: {problem}: "{printable(key[:100])}..."')
            return None
        try:
            reply = await self._client.ask(netstring(b"%s %s" % (self._name, data)))
        except LinkError as error:
            if isinstance(error, NotConnected):
                self._options.log.warning(f"connect to {self._server}: {error}")
            self._options.log.warning(f"table {self.spec} lookup error: {error}")
            raise TableFailed(self.spec, str(error)) from None
        return self._value(key, reply)

    def _value(self, key: str, reply: bytes) -> str | None:
        """What a reply says. Raises TableRetry."""
        status, blank, rest = reply.partition(b" ")
        if status == b"NOTFOUND":
            return None
        text = rest.decode("utf-8", "surrogateescape")
        if status == b"OK" and blank and not {"\0", "\r", "\n"} & set(text):
            return usable_value(self.spec, key, text, self._options)
        problem = f"socketmap server {_ERRORS.get(status, 'unknown')} error"
        if status in _ERRORS:
            problem += f": {printable(text[:200])}"
        self._options.log.warning(f"{self.spec} {problem}")
        raise TableFailed(self.spec, problem)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open_named(kind: str, name: str, options: TableOptions) -> SocketmapTable:
    """Open the table. Raises TableConfigError."""
    spec = f"{kind}:{name}"
    refuse_sensitive(spec, options)
    server, _, table = name.rpartition(":")
    try:
        endpoint = parse_endpoint(server)
        if not table:
            raise ValueError(f'need service transport:endpoint:name instead of "{name}"')
        return SocketmapTable(
            spec, str(endpoint), table, EndpointOpener(endpoint, ServerAddresses), options
        )
    except (ValueError, ConfigError) as error:
        raise TableConfigError(f"{spec}: {error}") from None
