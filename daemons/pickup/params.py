"""What pickup(8) reads before the jail."""

from dataclasses import dataclass

from libmail.lookup.authorization import AuthorizedUsers, LocalSenders, open_local_senders
from libmail.service.skeleton import Startup
from libmail.tables.table import TableOptions

__all__ = ["PickupParams", "Prepared", "prepare"]


@dataclass(frozen=True, slots=True)
class PickupParams:
    """Parameters of pickup(8)."""

    authorized_submit_users: str
    cleanup_service_name: str
    content_filter: str
    ipc_timeout: float
    mail_name: str
    mail_owner: str
    message_size_limit: int
    myhostname: str
    receive_override_options: tuple[str, ...]
    remote_header_rewrite_domain: str
    smtputf8_autodetect_classes: tuple[str, ...]
    verp_delimiter_filter: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Parameters and what was opened for them."""

    params: PickupParams
    users: AuthorizedUsers
    senders: LocalSenders


def prepare(startup: Startup) -> Prepared:
    """Read parameters, open tables."""
    params = startup.config.load(PickupParams)
    users = AuthorizedUsers(
        "authorized_submit_users",
        params.authorized_submit_users,
        "submit mail",
        TableOptions.of(startup.config),
    )
    return Prepared(params, users, open_local_senders(startup.config))
