"""What qmqpd(8) reads and opens before the jail."""

from dataclasses import dataclass
from typing import Final

from libmail.clients.cleanup import without_overridden
from libmail.dns.native import NativeResolver
from libmail.ipc.messages import CleanupFlag
from libmail.service.skeleton import Startup
from libmail.tables.match import AddressList
from libmail.tables.table import TableOptions

__all__ = ["Prepared", "QmqpdParams", "prepare"]

_TITLE: Final = "qmqpd_authorized_clients"
_ALWAYS: Final = CleanupFlag.FILTER | CleanupFlag.BCC | CleanupFlag.MAP | CleanupFlag.MILTER
_AUTODETECT: Final = frozenset({"qmqpd", "all"})  # in smtputf8_autodetect_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class QmqpdParams:
    """Parameters of qmqpd(8)."""

    cleanup_service_name: str
    content_filter: str
    inet_protocols: tuple[str, ...]
    ipc_idle: float
    ipc_timeout: float
    ipc_ttl: float
    line_length_limit: int
    mail_name: str
    message_size_limit: int
    myhostname: str
    parent_domain_matches_subdomains: tuple[str, ...]
    qmqpd_authorized_clients: tuple[str, ...]
    qmqpd_client_port_logging: bool
    qmqpd_error_delay: float
    qmqpd_timeout: float
    receive_override_options: tuple[str, ...]
    smtputf8_autodetect_classes: tuple[str, ...]
    verp_delimiter_filter: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Parameters and what was opened for them. cleanup_flags: CleanupFlag bits of every message."""

    params: QmqpdParams
    authorized: AddressList
    resolver: NativeResolver
    cleanup_flags: int


def prepare(startup: Startup) -> Prepared:
    """Read parameters, open tables."""
    params = startup.config.load(QmqpdParams)
    authorized = AddressList(
        _TITLE,
        params.qmqpd_authorized_clients,
        TableOptions.of(startup.config),
        parent=_TITLE in params.parent_domain_matches_subdomains,
    )
    return Prepared(params, authorized, NativeResolver(), _cleanup_flags(params))


def _cleanup_flags(params: QmqpdParams) -> int:
    flags = without_overridden(_ALWAYS, params.receive_override_options)
    if not _AUTODETECT.isdisjoint(params.smtputf8_autodetect_classes):
        flags |= CleanupFlag.SMTPUTF8_AUTODETECT
    return int(flags)
