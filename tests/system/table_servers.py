"""Servers of networked tables, in threads: tcp_table(5) and socketmap_table(5)."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

__all__ = ["TableServer"]


class TcpHandler(socketserver.StreamRequestHandler):
    """`get KEY` -> `200 VALUE`, `500 ...`."""

    def handle(self) -> None:
        entries = self.server.entries  # type: ignore[attr-defined]
        for line in self.rfile:
            value = entries.get(unquote(line.decode().split()[1]))
            self.wfile.write(f"200 {quote(value)}\n".encode() if value else b"500 not here\n")


class SocketmapHandler(socketserver.StreamRequestHandler):
    """`NAME KEY` -> `OK VALUE`, `NOTFOUND `, in netstrings."""

    def handle(self) -> None:
        entries = self.server.entries  # type: ignore[attr-defined]
        while length := self._number():
            name, _, key = self.rfile.read(length + 1)[:-1].decode().partition(" ")
            value = entries.get(key) if name == "aliases" else None
            reply = f"OK {value}" if value else "NOTFOUND "
            self.wfile.write(f"{len(reply.encode())}:{reply},".encode())

    def _number(self) -> int:
        digits = b""
        while (octet := self.rfile.read(1)) not in (b":", b""):
            digits += octet
        return int(digits or b"0")


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int] | str,
        handler: type[socketserver.BaseRequestHandler],
        entries: Mapping[str, str],
    ) -> None:
        if isinstance(address, str):
            self.address_family = socket.AF_UNIX
        self.entries = entries
        self.open: set[socket.socket] = set()
        super().__init__(address, handler)  # type: ignore[arg-type]

    def get_request(self) -> tuple[socket.socket, str]:
        connection, peer = super().get_request()
        self.open.add(connection)
        return connection, str(peer)

    def handle_error(self, request: object, client_address: object) -> None:
        """The connection was cut, which is what stop() does."""

    def server_bind(self) -> None:
        if self.address_family == socket.AF_UNIX:
            self.socket.bind(self.server_address)
        else:
            super().server_bind()


HANDLERS: Final = {"tcp": TcpHandler, "socketmap": SocketmapHandler}


class TableServer:
    """A server that can be stopped and started again; a context manager.

    where: a port of 127.0.0.1, or the path of a UNIX socket, which every account may use.
    """

    def __init__(self, kind: str, where: int | Path, entries: Mapping[str, str]) -> None:
        self._kind = kind
        self._where = where
        self._entries = entries
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def table(self) -> str:
        """The table in main.cf."""
        port = f"127.0.0.1:{self._where}"
        if self._kind == "tcp":
            return f"tcp:{port}"
        where = f"unix:{self._where}" if isinstance(self._where, Path) else f"inet:{port}"
        return f"socketmap:{where}:aliases"

    def start(self) -> None:
        if isinstance(self._where, Path):
            self._where.unlink(missing_ok=True)
            self._listener = _Listener(str(self._where), HANDLERS[self._kind], self._entries)
            self._where.chmod(0o777)
        else:
            address = ("127.0.0.1", self._where)
            self._listener = _Listener(address, HANDLERS[self._kind], self._entries)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut all connections."""
        if self._listener is None or self._thread is None:
            return
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
        for connection in self._listener.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already
        self._listener = self._thread = None

    def __enter__(self) -> TableServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
