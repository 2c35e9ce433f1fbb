"""The security level of a server, from its parameters. Needs no library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from libmail.tls.errors import TlsConfigError
from libmail.tls.levels import Level, level_named
from libmail.tls.params import ServerTlsParams

__all__ = ["ServerLevel", "server_level"]

_NO_CERTIFICATES: Final = "No server certs available. TLS won't be enabled"
_NOT_REQUIRED: Final = "Can't require client certs unless TLS is required"


@dataclass(frozen=True, slots=True)
class ServerLevel:
    """level: none, may or encrypt. warnings: what is odd about the parameters.

    usable: there are certificates, or it is said that there are none. Without, clients that want
    TLS are told that it is not available now, and those that must use it can do nothing.
    """

    level: Level
    warnings: tuple[str, ...] = ()
    usable: bool = True


def server_level(params: ServerTlsParams) -> ServerLevel:
    """The level of a server. Raises TlsConfigError."""
    text = params.smtpd_tls_security_level
    warnings = []
    level = Level.NONE
    if text:
        named = level_named(text)
        if named is None:
            raise TlsConfigError(f'Invalid TLS level "{text}"')
        level = min(named, Level.ENCRYPT)
        if level is not named:
            warnings.append(
                f'smtpd_tls_security_level: unsupported TLS level "{text}", using "encrypt"'
            )
    elif params.smtpd_enforce_tls:
        level = Level.ENCRYPT
    elif params.smtpd_use_tls:
        level = Level.MAY
    if params.smtpd_tls_wrappermode:
        level = Level.ENCRYPT
    if level is Level.NONE:
        return ServerLevel(level)
    if params.smtpd_tls_req_ccert and level is Level.MAY:
        warnings.append(_NOT_REQUIRED)
    usable = _names_certificates(params)
    if not usable:
        warnings.append(_NO_CERTIFICATES)
    return ServerLevel(level, tuple(warnings), usable)


def _names_certificates(params: ServerTlsParams) -> bool:
    """Whether certificates are configured, or explicitly none of them ("none")."""
    return bool(
        params.smtpd_tls_chain_files
        or params.smtpd_tls_cert_file
        or params.smtpd_tls_dcert_file
        or params.smtpd_tls_eccert_file
    )
