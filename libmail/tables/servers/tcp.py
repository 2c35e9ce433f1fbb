"""tcp:host:port - asks a server in a line of text, and gets a line: tcp_table(5)."""

from __future__ import annotations

import re
from typing import Final

from libmail.dns.native import ServerAddresses
from libmail.log import printable
from libmail.net.endpoint import EndpointOpener, parse_host_port
from libmail.net.stream_client import LinkError, NotConnected, Opener, StreamClient
from libmail.tables.table import (
    TableConfigError,
    TableFailed,
    TableOptions,
    key_filter,
    refuse_sensitive,
    usable_value,
)

__all__ = ["TcpTable", "decode_reply", "encode_request", "first_line", "open_named"]

_MAX_REPLY: Final = 4096  # octets with the newline
_TIMEOUT: Final = 100.0
_ENCODED: Final = re.compile(rb"[^!-$&-~]")
_PERCENT: Final = re.compile(rb"%(..?)?", re.DOTALL)
_REPLY: Final = re.compile(rb"([0-9]{3})[ \t](.*)", re.DOTALL)
_UNUSABLE: Final = re.compile(rb"[\0\r\n]")


def encode_request(key: str) -> bytes:
    """The request for a key: what is not printable, blanks and % become %XX."""
    data = key.encode("utf-8", "surrogateescape")
    return b"get " + _ENCODED.sub(lambda match: b"%%%02X" % match[0][0], data) + b"\n"


def decode_reply(line: bytes) -> tuple[int, bytes]:
    """Status and decoded text of a reply without its newline. Raises LinkError."""
    match = _REPLY.fullmatch(line)
    try:
        if match is None:
            raise ValueError
        text = _PERCENT.sub(_decoded, match[2])
    except ValueError:
        raise LinkError(f"malformed reply: {_shown(line)}") from None
    if int(match[1]) not in (200, 400, 500):
        raise LinkError(f"bad status code: {_shown(line)}")
    return int(match[1]), text


def _decoded(match: re.Match[bytes]) -> bytes:
    """One octet; raises ValueError for what is not two hexadecimal digits."""
    digits = match[1] or b""
    if len(digits) != 2 or not digits.isalnum():
        raise ValueError
    return bytes((int(digits, 16),))


def _shown(data: bytes) -> str:
    return printable(data[:100].decode("utf-8", "surrogateescape"))


def first_line(data: bytes) -> tuple[bytes, int] | None:
    """For `StreamClient`: the first line, without its end."""
    end = data.find(b"\n", 0, _MAX_REPLY)
    if end < 0:
        if len(data) >= _MAX_REPLY:
            raise LinkError(f"text longer than {_MAX_REPLY}")
        return None
    return data[:end].rstrip(b"\r"), end + 1


class TcpTable:
    """A server that speaks the protocol of tcp_table(5)."""

    pattern = True

    def __init__(self, spec: str, server: str, opener: Opener, options: TableOptions) -> None:
        """server: how warnings name it."""
        self.spec = spec
        self._options = options
        self._ready = key_filter(spec, options, pattern=True)
        self._client: StreamClient[bytes] = StreamClient(opener, first_line, timeout=_TIMEOUT)
        self._server = server

    async def lookup(self, key: str) -> str | None:
        """Return what the server has for the key, or None. Raises TableRetry."""
        wanted = self._ready(key)
        if not wanted:
            return None
        try:
            status, text = decode_reply(await self._client.ask(encode_request(wanted)))
            if _UNUSABLE.search(text):
                raise LinkError(f"malformed reply: {_shown(text)}")
        except NotConnected as error:
            self._options.log.warning(f"connect to TCP map {self._server}: {error}")
            raise TableFailed(self.spec, str(error)) from None
        except LinkError as error:
            self._options.log.warning(f"read TCP map reply from {self._server}: {error}")
            raise TableFailed(self.spec, str(error)) from None
        if status == 500:
            return None
        if status == 400:
            raise TableFailed(self.spec, _shown(text))
        value = text.decode("utf-8", "surrogateescape")
        return usable_value(self.spec, key, value, self._options)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def open_named(kind: str, name: str, options: TableOptions) -> TcpTable:
    """Open `tcp:host:port`. Raises TableConfigError."""
    spec = f"{kind}:{name}"
    refuse_sensitive(spec, options)
    try:
        endpoint = parse_host_port(name)
    except ValueError as error:
        raise TableConfigError(f"{spec}: {error}") from None
    return TcpTable(spec, str(endpoint), EndpointOpener(endpoint, ServerAddresses), options)
