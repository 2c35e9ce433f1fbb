"""The specification of a client's TLS session, and of the server's identity, as values."""

from __future__ import annotations

from dataclasses import dataclass

from libmail.tls.dane import Tlsa
from libmail.tls.settings import Protocols

__all__ = ["ClientSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSpec:
    """Settings of a client's session, and how to recognize the server.

    server_name: that is asked for (SNI). names: one must be in the certificate, as `mx.example.com`
    or `.example.com`. tlsa: one must match; base_domain: of their records. anchors: trusted instead
    of the authorities, as from a trust-anchor file. fingerprints: one must be that of the
    certificate or key with `digest`. wide_wildcards: `*` may stand for several labels.
    """

    ciphers: str
    protocols: Protocols
    server_name: str = ""
    names: tuple[str, ...] = ()
    tlsa: tuple[Tlsa, ...] = ()
    base_domain: str = ""
    anchors: tuple[Tlsa, ...] = ()
    fingerprints: frozenset[str] = frozenset()
    digest: str = "sha256"
    wide_wildcards: bool = True
    raw_keys: bool = False

    @property
    def names_a_peer(self) -> bool:
        """Whether the identity of the server is to be checked."""
        return bool(self.names or self.tlsa or self.fingerprints)
