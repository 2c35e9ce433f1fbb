"""HTTP/1.1 (RFC 9112) as far as one request to a server needs it: without I/O.

`form_request` writes a POST, `page_request` a GET, `ResponseParser` reads what comes back. The
server is a stranger: what it says is bounded in octets, parsed in one pass, and does not decide
about anything but itself. A redirection is an answer like any other: what was meant for one server
is sent to no second one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

__all__ = [
    "HttpError",
    "Response",
    "ResponseParser",
    "Url",
    "form_request",
    "page_request",
    "parse_url",
]

_MOST_FIELDS: Final = 100
# status-line = HTTP-version SP status-code SP [ reason-phrase ]                  RFC 9112 §4
_STATUS: Final = re.compile(r"HTTP/1\.[01] ([1-5][0-9][0-9])(?: .*)?")
# field-line = field-name ":" OWS field-value OWS                                 RFC 9112 §5
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
# chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF                           RFC 9112 §7.1
_CHUNK: Final = re.compile(r"([0-9A-Fa-f]{1,7})[ \t]*(?:;.*)?")
_PATH: Final = re.compile(r"[!-~]*")
_HOST: Final = re.compile(r"[0-9A-Za-z.-]{1,253}|[0-9A-Fa-f:.]{2,45}")


class HttpError(Exception):
    """The server gave no usable answer. The text is printable, and has nothing of the request."""


@dataclass(frozen=True, slots=True)
class Url:
    """Of https. target: path and query. host: without brackets."""

    host: str
    port: int
    target: str

    def authority(self) -> str:
        """As it stands in the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


def parse_url(text: str) -> Url:
    """Take an absolute https URL apart. Raises ValueError."""
    parts = urlsplit(text)
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise ValueError("not an https address")
    if not _HOST.fullmatch(host) or parts.username is not None or parts.fragment:
        raise ValueError("not the address of a server")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _PATH.fullmatch(target):
        raise ValueError("not the address of a page")
    return Url(host, parts.port or 443, target)


def form_request(url: Url, fields: Mapping[str, str], agent: str) -> bytes:
    """A POST of a form, after which the server is to close. agent: our name."""
    body = urlencode(fields).encode("ascii")
    lines = (
        f"POST {url.target} HTTP/1.1",
        f"Host: {url.authority()}",
        f"User-Agent: {agent}",
        "Accept: application/json",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


def page_request(url: Url, agent: str, accepted: str) -> bytes:
    """A GET, after which the server is to close. agent: our name. accepted: a media type."""
    lines = (
        f"GET {url.target} HTTP/1.1",
        f"Host: {url.authority()}",
        f"User-Agent: {agent}",
        f"Accept: {accepted}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answers. fields: by name in lower case, the last of each."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class ResponseParser:
    """Reads one response, in any pieces."""

    def __init__(self, limit: int) -> None:
        """limit: octets that are accepted in all."""
        self._left = limit
        self._data = bytearray()
        self._seen = 0  # octets of it in which there is no end of a line
        self._lines: list[str] = []
        self._head: tuple[int, dict[str, str]] | None = None
        self._body = bytearray()
        self._length: int | None = None
        self._chunked = False
        self._chunk = 0  # octets of the chunk that are to come, its line end included
        self._last = False  # the chunks are over, trailers may come

    def receive(self, data: bytes) -> Response | None:
        """Take what has come, b"" at the end of the stream; the response if it is whole.

        Raises HttpError, and must not be called again then.
        """
        self._left -= len(data)
        if self._left < 0:
            raise HttpError("answer too long")
        self._data += data
        if self._head is None and not self._read_head():
            done = False
        elif self._chunked:
            done = self._read_chunks()
        else:
            self._body += self._data
            self._data.clear()
            done = len(self._body) >= self._length if self._length is not None else not data
        if not done or self._head is None:
            if not data:
                raise HttpError("answer cut short")
            return None
        body = bytes(self._body if self._length is None else self._body[: self._length])
        return Response(*self._head, body)

    def _line(self) -> str | None:
        """The next line, without its end; None where it is not complete."""
        end = self._data.find(b"\n", self._seen)
        if end < 0:
            self._seen = len(self._data)
            return None
        line = self._data[:end].decode("latin-1").removesuffix("\r")
        del self._data[: end + 1]
        self._seen = 0
        return line

    def _read_head(self) -> bool:
        """Whether the head is complete; interim responses (RFC 9110 §15.2) are passed over."""
        while (line := self._line()) is not None:
            if line:
                self._lines.append(line)
                if len(self._lines) > _MOST_FIELDS:
                    raise HttpError("answer with too many fields")
                continue
            status, fields = _parsed(self._lines)
            self._lines.clear()
            if status >= 200:
                self._begin_body(status, fields)
                return True
        return False

    def _begin_body(self, status: int, fields: dict[str, str]) -> None:
        self._head = status, fields
        coding = fields.get("transfer-encoding", "").lower()
        if coding not in ("", "chunked"):
            raise HttpError("unknown transfer coding")
        self._chunked = bool(coding)
        length = fields.get("content-length")
        if status == 204:
            self._length = 0
        elif length is not None and not coding:
            if not _LENGTH.fullmatch(length):
                raise HttpError("malformed length")
            self._length = int(length)

    def _read_chunks(self) -> bool:
        """Whether the last chunk, and the trailers after it, have come."""
        while True:
            if self._chunk:
                taken = self._data[: self._chunk]
                self._body += taken
                del self._data[: len(taken)]
                self._chunk -= len(taken)
                if self._chunk:
                    return False
                del self._body[-2:]
            line = self._line()
            if line is None:
                return False
            if self._last:
                if not line:
                    return True
                continue
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise HttpError("malformed chunk")
            size = int(match[1], 16)
            self._last = size == 0
            self._chunk = size + 2 if size else 0


def _parsed(lines: list[str]) -> tuple[int, dict[str, str]]:
    """Status and fields of a head. Raises HttpError."""
    match = _STATUS.fullmatch(lines[0]) if lines else None
    if match is None:
        raise HttpError("not an HTTP server")
    fields = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise HttpError("malformed field")
        fields[name.lower()] = value.strip(" \t")
    return int(match[1]), fields
