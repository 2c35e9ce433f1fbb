"""A server that swallows traffic: its sockets, how many sessions it has, and when it ends."""

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from libmail.load.command_line import Options
from libmail.log import Fatal

__all__ = ["Listener", "listening_sockets"]

_BURST: Final = 64


def listening_sockets(where: str, backlog: str, options: Options) -> list[socket.socket]:
    """Open sockets for `unix:path` or `[inet:][host]:port`. Raises Fatal, OSError."""
    if not (backlog.isascii() and backlog.isdigit()):
        raise Fatal(f"bad backlog: {backlog}")
    if where.startswith("unix:"):
        sockets = [_unix_socket(where.removeprefix("unix:"))]
    else:
        sockets = _inet_sockets(where.removeprefix("inet:"), options)
    for sock in sockets:
        sock.listen(int(backlog[:9]))
        sock.setblocking(False)
    return sockets


def _unix_socket(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    return sock


def _inet_sockets(where: str, options: Options) -> list[socket.socket]:
    host, _, service = where.rpartition(":")
    if not service:
        raise Fatal(f"{where}: no port")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None,
            service,
            family=_family(options),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as err:
        raise Fatal(f"{where}: {err.strerror}") from None
    sockets = []
    for family, _, _, _, address in found:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sockets.append(sock)
    return sockets


def _family(options: Options) -> int:
    if "-4" in options or "-6" in options:
        return socket.AF_INET if "-4" in options else socket.AF_INET6
    return socket.AF_UNSPEC


class Listener:
    """Accepts clients while there is room for them; `run` ends with `end`, or after a time.

    make: the protocol of a connection, which calls `session_over` once when it is lost.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        make: Callable[["Listener"], asyncio.Protocol],
        *,
        most: int,
        window: int = 0,
    ) -> None:
        """most: sessions at a time. window: octets of the sockets' buffers, 0 for the usual."""
        self._sockets = sockets
        self._make = make
        self._most = most
        self._window = window
        self._open = 0
        self._accepting = False
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self._loop: Final = asyncio.get_running_loop()

    async def run(self, limit: float | None = None) -> None:
        """Serve. limit: seconds after which to end."""
        self._accept_more()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._ended.wait()
        self._pause()

    def end(self) -> None:
        """Enough was served."""
        self._ended.set()

    def session_over(self) -> None:
        """A connection is closed."""
        self._open -= 1
        if not self._accepting and not self._ended.is_set():
            self._accept_more()

    def _accept_more(self) -> None:
        self._accepting = True
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _pause(self) -> None:
        self._accepting = False
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_BURST):
            if self._open >= self._most:
                self._pause()
                return
            try:
                sock, _ = listening.accept()
            except OSError:
                return  # nobody, or no descriptors
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        self._open += 1
        sock.setblocking(False)
        if self._window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._window)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._window)
        serving = self._loop.connect_accepted_socket(lambda: self._make(self), sock)
        task: asyncio.Task[object] = self._loop.create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
