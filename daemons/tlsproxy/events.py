"""The log lines of tlsproxy(8). client: "[address]:port"."""

from typing import NamedTuple

__all__ = ["Connect", "Disconnect", "HandshakeFailed"]


class Connect(NamedTuple):
    """A client was handed over."""

    client: str

    def text(self) -> str:
        """`CONNECT from [1.2.3.4]:5`."""
        return f"CONNECT from {self.client}"


class Disconnect(NamedTuple):
    """The session of a client is over."""

    client: str

    def text(self) -> str:
        """`DISCONNECT [1.2.3.4]:5`."""
        return f"DISCONNECT {self.client}"


class HandshakeFailed(NamedTuple):
    """There is no TLS session with the client. reason: as SSL_accept error has it elsewhere."""

    client: str
    reason: str

    def text(self) -> str:
        """`TLS handshake failed for service=smtpd peer=[1.2.3.4]:5`."""
        return f"TLS handshake failed for service=smtpd peer={self.client}"
