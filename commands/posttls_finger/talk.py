"""A conversation with one server, in lines; and inside of TLS from the handshake on."""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

from libmail.log import printable
from libmail.tls.connection import Connection, Step
from libmail.tls.errors import TlsClosed, TlsFailed

__all__ = ["Answer", "LostServer", "Talk"]

_READ: Final = 1 << 14
_LONGEST_REPLY: Final = 1 << 16  # octets


class LostServer(Exception):
    """The server has gone, does not answer in time, or answers nonsense. The text says which."""


class Answer(NamedTuple):
    """A reply. code: 0 for what is none."""

    code: int
    lines: tuple[str, ...]

    @property
    def positive(self) -> bool:
        """Whether the command was carried out."""
        return self.code // 100 == 2


class Talk:
    """sock: connected, with a time limit; owned."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tls: Connection | None = None
        self._unread = b""

    def limit(self, seconds: float) -> None:
        """For each wait from now on."""
        self._sock.settimeout(seconds)

    def send(self, line: str) -> None:
        """Say something. Raises LostServer."""
        self._write(f"{line}\r\n".encode("utf-8", "surrogateescape"))

    def answer(self) -> Answer:
        """What the server says. Raises LostServer."""
        lines: list[str] = []
        size = 0
        while not lines or lines[-1][3:4] == "-":
            line = self._line()
            size += len(line)
            if size > _LONGEST_REPLY:
                raise LostServer("reply too long")
            lines.append(printable(line.decode("utf-8", "replace")))
        code = lines[-1][:3]
        return Answer(int(code) if code.isascii() and code.isdecimal() else 0, tuple(lines))

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            if len(self._unread) > _LONGEST_REPLY:
                raise LostServer("line too long")
            self._unread += self._read()
        line, _, self._unread = self._unread.partition(b"\n")
        return line.removesuffix(b"\r")

    def shake(self, connection: Connection) -> None:
        """Go on inside of TLS. Raises TlsFailed, LostServer."""
        self._unread = b""  # what came before the handshake counts for nothing
        while connection.handshake() is not Step.DONE:
            self._pass_on(connection)
            connection.receive(self._received())
        self._pass_on(connection)
        self._tls = connection

    def close(self) -> None:
        """End the connection."""
        if self._tls is not None:
            self._tls.shutdown()
            try:
                self._pass_on(self._tls)
            except LostServer:
                pass
            self._tls.close()
        self._sock.close()

    def _pass_on(self, connection: Connection) -> None:
        if output := connection.output():
            self._sent(output)

    def _write(self, data: bytes) -> None:
        if self._tls is None:
            self._sent(data)
            return
        try:
            self._tls.write(data)
        except TlsFailed as error:
            raise LostServer(error.reason) from None
        self._pass_on(self._tls)

    def _read(self) -> bytes:
        if self._tls is None:
            return self._received()
        try:
            while not (data := self._tls.read()):
                self._tls.receive(self._received())
        except (TlsClosed, TlsFailed):
            raise LostServer("lost connection") from None
        return data

    def _sent(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise LostServer(error.strerror or "timeout") from None

    def _received(self) -> bytes:
        try:
            data = self._sock.recv(_READ)
        except OSError as error:
            raise LostServer(error.strerror or "timeout") from None
        if not data:
            raise LostServer("lost connection")
        return data
