"""A session as a layer of encryption, see `libmail.net.layer`."""

from __future__ import annotations

from collections.abc import Mapping

from libmail.tls.connection import Connection, Step
from libmail.tls.errors import TlsClosed, TlsError, TlsFailed, warn_of_problems

__all__ = ["TlsLayer"]


class TlsLayer:
    """Over a connection of our own. ended: see `Layer`. failed: why it has, before its time."""

    __slots__ = ("_connection", "_failed", "ended")

    def __init__(self, connection: Connection) -> None:
        self.ended = False
        self._connection = connection
        self._failed: TlsFailed | None = None

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete. Raises TlsFailed."""
        if self._failed is not None:
            raise self._failed
        return self._connection.handshake() is Step.DONE

    def receive(self, data: bytes) -> None:
        """Take input from the network; b"" for its end."""
        try:
            if data:
                self._connection.receive(data)
            else:
                self._connection.end_of_input()
        except TlsFailed as error:
            self._failed = error

    def read(self) -> bytes | None:
        """Decrypted input; None when the session has ended."""
        if self._failed is not None:
            return None
        try:
            return self._connection.read()
        except TlsClosed:
            return None
        except TlsFailed as error:
            self._failed = error
            warn_of_problems(error.problems)
            return None

    def decrypt(self, data: bytes) -> bytes:
        """Take input from the network, and return what can be read of it by now."""
        connection = self._connection
        try:
            connection.receive(data)
            content = connection.read()
        except TlsError as error:
            self.ended = True
            if isinstance(error, TlsFailed):
                warn_of_problems(error.problems)
            return b""
        self.ended = connection.end is not None
        return content

    def protect(self, data: bytes) -> bytes:
        """Encrypt data; the output also has alerts and other records to send."""
        connection = self._connection
        try:
            connection.write(data)
        except TlsFailed:
            return self._output()  # that it was lost shows when something is awaited
        return connection.output()

    def bindings(self) -> Mapping[str, bytes]:
        """The data of channel bindings by name."""
        return self._connection.bindings()

    def end(self) -> bytes:
        """The last output, close_notify."""
        self._connection.shutdown()
        last = self._output()
        self._connection.close()
        return last

    def _output(self) -> bytes:
        try:
            return self._connection.output()
        except TlsFailed:
            return b""
