"""The log lines of handshakes with clients. Log analysers read them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TlsError", "TlsEstablished", "TlsPeer"]


class TlsEstablished(NamedTuple):
    """A handshake with a client succeeded. summary: the text of the line.

    trust: Anonymous, Untrusted or Trusted. protocol: such as TLSv1.3. resumed: a session of before.
    """

    client: str
    trust: str
    protocol: str
    cipher: str
    resumed: bool
    summary: str

    def text(self) -> str:
        """`Anonymous TLS connection established from host[1.2.3.4]: TLSv1.3 with cipher ...`."""
        return self.summary


class TlsPeer(NamedTuple):
    """What is said of a client's certificate. what: the whole line."""

    client: str
    what: str

    def text(self) -> str:
        """`host[1.2.3.4]: subject_CN=..., issuer=..., fingerprint=...`."""
        return self.what


class TlsError(NamedTuple):
    """A handshake has failed."""

    client: str
    reason: str

    def text(self) -> str:
        """`SSL_accept error from host[1.2.3.4]: lost connection`."""
        return f"SSL_accept error from {self.client}: {self.reason}"
