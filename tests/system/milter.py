"""A Milter for tests: it changes and refuses as told, and remembers what it was told."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence

__all__ = ["Milter"]


class Milter:
    """Answers each command with `answers[command]`, "c" for what is not there.

    edits: (letter, data) of changes at the end of a message. An answer "close" breaks off.
    """

    def __init__(
        self, answers: dict[str, str] | None = None, edits: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.answers = answers or {}
        self.edits = edits
        self.heard: list[tuple[str, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Break off everything."""
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def __enter__(self) -> Milter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def said(self, command: str) -> list[bytes]:
        """The data of all events of a kind."""
        return [data for letter, data in self.heard if letter == command]

    def _accept(self) -> None:
        threads = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threads.append(threading.Thread(target=self._serve, args=(connection,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                command, data = self._receive(connection)
                if command == "Q":
                    return
                if command == "O":
                    self._send(connection, "O", struct.pack(">III", 6, 0x1FF, 0))
                    continue
                self.heard.append((command, data))
                if command in "DA":
                    continue
                if command == "E":
                    for letter, change in self.edits:
                        self._send(connection, letter, change)
                answer = self.answers.get(command, "c")
                if answer == "close":
                    return
                letter, _, text = answer.partition(" ")
                self._send(connection, letter, text.encode() + b"\0" if text else b"")

    def _receive(self, connection: socket.socket) -> tuple[str, bytes]:
        (length,) = struct.unpack(">I", self._exactly(connection, 4))
        data = self._exactly(connection, length)
        return chr(data[0]), data[1:]

    def _exactly(self, connection: socket.socket, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = connection.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _send(self, connection: socket.socket, letter: str, data: bytes) -> None:
        connection.sendall(struct.pack(">I", len(data) + 1) + letter.encode() + data)
