"""Addresses of servers, `inet:host:port` or `unix:/path`, and how to connect to them.

Used for the tables tcp, socketmap and memcache, policy servers, Milters, and Dovecot.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from libmail.net.introduction import unix_socket

__all__ = ["Endpoint", "EndpointOpener", "FindAddresses", "is_connected", "parse_endpoint",
           "parse_host_port"]  # fmt: skip

_UNIX: Final = ("unix", "local")  # the latter is the word of libmilter
FindAddresses: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host. Raises OSError."""

P = TypeVar("P", bound=asyncio.Protocol)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A UNIX socket (path), or a port of a host (name or address) where path is ""."""

    path: str
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As in warnings: "host:port", "[address]:port" or the path."""
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Parse `inet:host:port`, `unix:path` or `local:path`. Raises ValueError with the reason."""
    kind, colon, rest = text.partition(":")
    if kind in _UNIX and rest:
        return Endpoint(rest)
    if kind == "inet" and rest:
        return parse_host_port(rest)
    if colon and kind not in ("inet", *_UNIX):
        raise ValueError(f'invalid transport name: {kind} in "{text}"')
    raise ValueError(f'need service transport:endpoint instead of "{text}"')


def parse_host_port(text: str) -> Endpoint:
    """Parse `host:port`, `[address]:port` or `port` (of localhost). Raises ValueError."""
    host, _, service = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1].removeprefix("IPv6:")
    elif ":" in host:
        raise ValueError(f"{text}: an IPv6 address needs [ ] around it")
    return Endpoint("", host or "localhost", _port(text, service))


def _port(text: str, service: str) -> int:
    if service.isascii() and service.isdigit() and 0 < int(service[:6]) < 65536:
        return int(service)
    try:
        return socket.getservbyname(service, "tcp")
    except (OSError, UnicodeError):
        raise ValueError(f"{text}: unknown service: {service}") from None


class EndpointOpener:
    """Connects to an endpoint; made before the jail."""

    def __init__(self, endpoint: Endpoint, resolver: Callable[[], FindAddresses]) -> None:
        """resolver: makes the function that looks up addresses, for an endpoint with a host."""
        self.endpoint = endpoint
        self._addresses = None if endpoint.path else resolver()

    async def open_socket(self) -> socket.socket:
        """A connected socket that does not block. Raises OSError."""
        loop = asyncio.get_running_loop()
        endpoint = self.endpoint
        if self._addresses is None:
            return await unix_socket(endpoint.path)

        async def connect(address: str) -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return await _connected(loop, family, (address, endpoint.port))

        return await self._to_any(self._addresses, connect)

    async def connect(self, factory: Callable[[], P]) -> P:
        """A new connection for the protocol that `factory` makes. Raises OSError."""
        loop = asyncio.get_running_loop()
        endpoint = self.endpoint
        if self._addresses is None:
            sock = await unix_socket(endpoint.path)
            return (await loop.create_unix_connection(factory, sock=sock))[1]

        async def connect(address: str) -> P:
            return (await loop.create_connection(factory, address, endpoint.port))[1]

        return await self._to_any(self._addresses, connect)

    async def _to_any(self, find: FindAddresses, connect: Callable[[str], Awaitable[R]]) -> R:
        """The first connection that succeeds, of those to all addresses of the host."""
        problem = OSError(0, f"host not found: {self.endpoint.host}")
        for address in await find(self.endpoint.host):
            try:
                return await connect(address)
            except OSError as error:
                problem = error
        raise problem


async def _connected(
    loop: asyncio.AbstractEventLoop, family: int, address: tuple[str, int]
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS and not is_connected(sock):
            code = await _outcome(loop, sock)
        if code and code != errno.EINPROGRESS:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def is_connected(sock: socket.SocketType) -> bool:
    """Whether it is: on the same host, as soon as the call that connects returns."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def _outcome(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> int:
    """The error with which an attempt to connect ends, 0 for none."""
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(sock)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
