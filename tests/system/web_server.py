"""What the HTTPS servers of tests have in common: a thread for each client, and an end."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Self

from tests.certificates import Issued

__all__ = ["WebServer", "some"]


class WebServer:
    """Use as a context manager. hold: while it is clear, requests wait for their answer."""

    def __init__(self, issued: Issued, listener: socket.socket) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.hold = threading.Event()
        self.hold.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def answer(self, connection: ssl.SSLSocket) -> None:
        """Read a request and answer it. Raises OSError."""
        raise NotImplementedError

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            with self._context.wrap_socket(raw, server_side=True) as connection:
                self.answer(connection)
        except OSError:
            raw.close()  # the client did not want it, or was killed


def some(connection: ssl.SSLSocket) -> bytes:
    """What comes next. Raises OSError at the end, too."""
    data = connection.recv(1 << 14)
    if not data:
        raise ConnectionResetError
    return data
