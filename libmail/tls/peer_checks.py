"""Configures the library to check the server's identity, before the handshake."""

from __future__ import annotations

from typing import Final

from libmail.tls.client_spec import ClientSpec
from libmail.tls.dane import Tlsa
from libmail.tls.errors import TlsConfigError
from libmail.tls.library import FFI, SSL, Handle, clear_problems, problems
from libmail.tls.own_sessions import OwnSessions

__all__ = ["expect"]

_SET_SERVER_NAME: Final = 55  # command of SSL_ctrl(3)
_HOST_NAME: Final = 0  # TLSEXT_NAMETYPE_host_name
_NO_NAMES_OF_DANE_EE: Final = 1  # DANE_FLAG_NO_DANE_EE_NAMECHECKS, RFC 7671 §5.1
_NO_PARTIAL_WILDCARDS: Final = 0x4  # X509_CHECK_FLAG_...
_MULTI_LABEL_WILDCARDS: Final = 0x8
_LONGEST_NAME: Final = 255


def expect(ssl: Handle, spec: ClientSpec, own: OwnSessions, saved: bytes = b"") -> tuple[Tlsa, ...]:
    """Configure a session. Returns the TLSA records, or anchors, that the library cannot use.

    saved: a session to be resumed, b"" for none. own: of this process. Raises TlsConfigError.
    """
    unusable = _add_records(ssl, spec)
    _add_names(ssl, spec)
    if spec.server_name:
        _ask_for(ssl, spec.server_name)
    if saved:
        session = own.find(saved)
        if session != FFI.NULL:  # one of another version of the library is as good as none
            SSL.SSL_set_session(ssl, session)
    clear_problems()
    return unusable


def _add_records(ssl: Handle, spec: ClientSpec) -> tuple[Tlsa, ...]:
    records = spec.tlsa or spec.anchors
    if not records:
        return ()
    base = spec.base_domain.encode() if spec.base_domain else FFI.NULL
    if SSL.SSL_dane_enable(ssl, base) <= 0:
        raise TlsConfigError("error enabling DANE-based certificate validation", problems())
    SSL.SSL_dane_set_flags(ssl, _NO_NAMES_OF_DANE_EE)
    return tuple(record for record in records if not _added(ssl, record))


def _added(ssl: Handle, record: Tlsa) -> bool:
    data = record.data
    return not record.unusable and (
        SSL.SSL_dane_tlsa_add(ssl, record.usage, record.selector, record.matching, data, len(data))
        > 0
    )


def _add_names(ssl: Handle, spec: ClientSpec) -> None:
    wide = _MULTI_LABEL_WILDCARDS if spec.wide_wildcards else 0
    SSL.SSL_set_hostflags(ssl, _NO_PARTIAL_WILDCARDS | wide)
    for name in spec.names:
        if not name.isascii() or SSL.SSL_add1_host(ssl, name.encode()) != 1:
            raise TlsConfigError(f'error loading match name: "{name[:_LONGEST_NAME]}"')


def _ask_for(ssl: Handle, name: str) -> None:
    if len(name) > _LONGEST_NAME or not name.isascii() or "\0" in name:
        raise TlsConfigError(f"ignoring too long SNI hostname: {name[:100]}")
    target = FFI.new("char[]", name.encode())
    if SSL.SSL_ctrl(ssl, _SET_SERVER_NAME, _HOST_NAME, target) != 1:
        raise TlsConfigError(f"error setting SNI hostname to: {name}", problems())
