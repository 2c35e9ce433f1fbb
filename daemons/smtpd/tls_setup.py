"""The TLS settings of smtpd(8); read and opened before the jail.

The library is loaded only where TLS is used, and then here: nothing is imported after the jail. A
certificate that cannot be used does not stop the mail: clients are told that TLS is not available
now (454), or, where they have to use it, that they must (530).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from libmail.config import Config
from libmail.files.approved import ApprovedFiles
from libmail.log import LOG, Fatal
from libmail.tables.table import TableOptions
from libmail.tls.errors import TlsConfigError, possibly
from libmail.tls.levels import Level
from libmail.tls.params import ServerTlsParams
from libmail.tls.server_level import server_level

if TYPE_CHECKING:
    from libmail.handshakes.server import Handshakes

__all__ = ["NO_TLS", "TlsSetup", "open_tls"]


@dataclass(frozen=True, slots=True)
class TlsSetup:
    """level: none, may or encrypt. wrapped: TLS from the first octet, without STARTTLS.

    asks: clients for a certificate. requires: one that is trusted. told: what was agreed upon is
    in the Received: header. patience: seconds for a handshake. handshakes: None where they are not
    possible.
    """

    level: Level = Level.NONE
    wrapped: bool = False
    asks: bool = False
    requires: bool = False
    told: bool = False
    patience: float = 0.0
    handshakes: Handshakes | None = None


NO_TLS = TlsSetup()


def open_tls(
    config: Config, service: str, options: TableOptions, approved: ApprovedFiles | None = None
) -> TlsSetup:
    """Read and open it. Raises Fatal, ConfigError.

    service: the first column of master.cf. approved: for certificates that are renewed.
    """
    params = config.load(ServerTlsParams)
    try:
        decided = server_level(params)
    except TlsConfigError as error:
        raise Fatal(error.reason) from None
    if decided.level is Level.NONE:
        return NO_TLS
    for warning in decided.warnings:
        LOG.warning(warning)

    def make() -> Handshakes:
        from libmail.handshakes.server import HandshakeParams, open_handshakes

        told = config.load(HandshakeParams)
        name = f"smtpd {service}"
        return open_handshakes(
            params,
            told,
            config,
            decided.level,
            options,
            name,
            approved,
            loglevel_maps="smtpd_tls_loglevel_maps",
        )

    return TlsSetup(
        decided.level,
        wrapped=params.smtpd_tls_wrappermode,
        asks=params.smtpd_tls_ask_ccert,
        requires=params.smtpd_tls_req_ccert and decided.level.enforced,
        told=config.bool("smtpd_tls_received_header"),
        patience=config.seconds("smtpd_starttls_timeout"),
        handshakes=possibly(make) if decided.usable else None,
    )
