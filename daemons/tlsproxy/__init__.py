"""tlsproxy(8): shakes hands with clients of postscreen(8), which itself never touches TLS.

called by: postscreen (libmail/clients/tlsproxy.py). asks: tlsmgr, proxymap (tls_server_sni_maps).
writes: nothing. tells: nobody. serves: clients in the network, whose sockets come by descriptor.

needs: keys and certificates before the jail; after it private/tlsmgr.

A hijacked one has the keys, and reads what such clients say. Mail is among that only where they go
on with smtpd in the same session (postscreen_deep_handover), which then believes what is said here
of the session and of the client's certificate. Settings are those of main.cf whose names begin with
tlsproxy_, where they are not those of smtpd, otherwise with postscreen_.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final, TypeVar

from daemons.tlsproxy.proxy import Proxy
from libmail.config import Config
from libmail.log import LOG, Fatal
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.table import TableOptions
from libmail.tls.errors import TlsConfigError, possibly
from libmail.tls.levels import Level
from libmail.tls.params import ServerTlsParams
from libmail.tls.server_level import server_level

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from libmail.handshakes.server import Handshakes

__all__ = ["SERVICE", "of_proxy"]

P = TypeVar("P", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Prepared:
    """handshakes: None where they are not possible."""

    handshakes: Handshakes | None


def of_proxy(config: Config, cls: type[P]) -> P:
    """Parameters of smtpd as they are here: tlsproxy's own, or else postscreen's.

    cls: a record for `Config.load`. Raises ConfigError.
    """
    usual, screen = config.load(cls), config.load(cls, ("smtpd_", "postscreen_"))
    own = config.load(cls, ("smtpd_", "tlsproxy_"))
    values: dict[str, object] = {}
    for field in fields(cls):
        mine, theirs = getattr(own, field.name), getattr(screen, field.name)
        values[field.name] = theirs if mine == getattr(usual, field.name) else mine
    return cls(**values)


def _prepare(startup: Startup) -> Prepared:
    config = startup.config
    params = replace(of_proxy(config, ServerTlsParams), smtpd_tls_wrappermode=False)
    try:
        decided = server_level(params)
    except TlsConfigError as error:
        raise Fatal(error.reason) from None
    for warning in decided.warnings:
        LOG.warning(warning)
    # That it is asked shows that postscreen wants TLS, whatever the level of others.
    level = max(decided.level, Level.MAY)

    def make() -> Handshakes:
        from libmail.handshakes.server import HandshakeParams, open_handshakes

        told = of_proxy(config, HandshakeParams)
        options = TableOptions.of(config)
        name = f"tlsproxy {startup.service}"
        return open_handshakes(
            params,
            told,
            config,
            level,
            options,
            name,
            startup.approved,
            loglevel_maps="postscreen_tls_loglevel_maps",
        )

    return Prepared(possibly(make))


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    if prepared.handshakes is not None:
        prepared.handshakes.begin(runtime.spawn)
    proxy = Proxy(prepared.handshakes, runtime)
    return Handlers(stream=exchanges(runtime, proxy.serve, network=True), descriptors=True)


SERVICE: Final = Service(
    "tlsproxy",
    _prepare,
    _start,
    reads_approved=True,
    network=True,
    watchdog="tlsproxy_watchdog_timeout",
)
