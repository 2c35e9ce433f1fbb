"""What local(8) reads and opens before it serves."""

import os
import pwd
from dataclasses import dataclass, replace
from typing import NamedTuple

from daemons.local.expansion import Template
from daemons.local.stage import Stage
from daemons.local.user import User, default_user
from libmail.agents.delivery import DeliveryParams
from libmail.agents.status_filter import StatusFilter, open_status_filter
from libmail.log import Fatal
from libmail.mailbox.maildir import MaildirWriter
from libmail.mailbox.mbox import MboxLocking
from libmail.service.skeleton import Startup
from libmail.tables.maps import Maps
from libmail.tables.registry import without_proxy
from libmail.tables.table import TableOptions

__all__ = ["AliasTable", "LocalParams", "Plan", "Settings", "prepare"]


@dataclass(frozen=True, slots=True)
class LocalParams:
    """Parameters of local(8)."""

    alias_maps: tuple[str, ...]
    allow_mail_to_commands: tuple[str, ...]
    allow_mail_to_files: tuple[str, ...]
    biff: bool
    cleanup_service_name: str
    command_execution_directory: str
    command_expansion_filter: str
    command_time_limit: float
    default_privs: str
    deliver_lock_attempts: int
    deliver_lock_delay: float
    duplicate_filter_limit: int
    execution_directory_expansion_filter: str
    enable_original_recipient: bool
    expand_owner_alias: bool
    export_environment: tuple[str, ...]
    fallback_transport: str
    fallback_transport_maps: tuple[str, ...]
    forward_expansion_filter: str
    forward_path: str
    frozen_delivered_to: bool
    home_mailbox: str
    ipc_timeout: float
    local_command_shell: str
    local_delivery_status_filter: tuple[str, ...]
    luser_relay: str
    mail_name: str
    mail_spool_directory: str
    mailbox_command: str
    mailbox_command_maps: tuple[str, ...]
    mailbox_delivery_lock: tuple[str, ...]
    mailbox_size_limit: int
    mailbox_transport: str
    mailbox_transport_maps: tuple[str, ...]
    message_size_limit: int
    myhostname: str
    owner_request_special: bool
    prepend_delivered_header: tuple[str, ...]
    propagate_unmatched_extensions: tuple[str, ...]
    recipient_delimiter: str
    require_home_directory: bool
    reset_owner_alias: bool
    rewrite_service_name: str
    stale_lock_time: float
    strict_mailbox_ownership: bool


@dataclass(frozen=True, slots=True)
class AliasTable:
    """One of alias_maps. owner: user id of its file, 0 also where no file tells."""

    maps: Maps
    owner: int


class Plan(NamedTuple):
    """What parameters mean for every delivery.

    only_mailboxes: each user has a mailbox of ours, and nothing else is asked for it. appends:
    mailboxes are mbox files. forward_path: its items.
    """

    only_mailboxes: bool
    appends: bool
    forward_path: tuple[Template, ...]

    @classmethod
    def of(cls, params: LocalParams) -> "Plan":
        """Decide."""
        elsewhere = params.mailbox_transport or params.mailbox_transport_maps
        command = params.mailbox_command or params.mailbox_command_maps
        return cls(
            only_mailboxes=not (elsewhere or command),
            appends=not (params.home_mailbox or params.mail_spool_directory).endswith("/"),
            forward_path=tuple(
                map(Template.of, params.forward_path.replace(",", " ").split()),
            ),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process of local(8) works with; the same for all messages.

    default: default_privs. is_root: it can act as any user.
    """

    params: LocalParams
    delivery: DeliveryParams
    status_filter: StatusFilter
    aliases: tuple[AliasTable, ...]
    mailbox_transports: Maps
    mailbox_commands: Maps
    fallback_transports: Maps
    plan: Plan
    locking: MboxLocking
    maildirs: MaildirWriter
    default: User
    is_root: bool

    def rights_of(self, stage: Stage) -> User:
        """Whose rights a delivery to a file or command takes."""
        rights = stage.rights
        if rights is None:
            return self.default
        if rights.identity.uid == 0:
            return replace(rights, identity=self.default.identity)
        return rights


def _file_owner(spec: str) -> int:
    """Who can change a table: the owner of its file; root, if it is no file or in main.cf."""
    _, _, name = without_proxy(spec).partition(":")
    for path in (f"{name}.lmdb", name):
        if path.startswith("/"):
            try:
                return os.stat(path).st_uid
            except OSError:
                continue
    return 0


def _default_user(params: LocalParams, *, is_root: bool) -> User:
    if not is_root:
        return default_user(pwd.getpwuid(os.geteuid()))
    try:
        entry = pwd.getpwnam(params.default_privs)
    except KeyError:
        raise Fatal(
            f"main.cf configuration error: default_privs: unknown user: {params.default_privs}"
        ) from None
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        raise Fatal("main.cf configuration error: default_privs: privileged user")
    return default_user(entry)


def prepare(startup: Startup) -> Settings:
    """Read parameters, open tables."""
    params = startup.config.load(LocalParams)
    if params.mailbox_size_limit and params.mailbox_size_limit < params.message_size_limit:
        raise Fatal(
            "main.cf configuration error: mailbox_size_limit is smaller than message_size_limit"
        )
    options = TableOptions.of(startup.config, sensitive=True)
    status_filter = open_status_filter(
        startup.config, "local_delivery_status_filter", params.local_delivery_status_filter
    )
    is_root = os.geteuid() == 0
    return Settings(
        params=params,
        delivery=startup.config.load(DeliveryParams),
        status_filter=status_filter,
        aliases=tuple(
            AliasTable(Maps("alias_maps", (spec,), options), _file_owner(spec))
            for spec in params.alias_maps
        ),
        mailbox_transports=Maps("mailbox_transport_maps", params.mailbox_transport_maps, options),
        mailbox_commands=Maps("mailbox_command_maps", params.mailbox_command_maps, options),
        fallback_transports=Maps(
            "fallback_transport_maps", params.fallback_transport_maps, options
        ),
        plan=Plan.of(params),
        locking=MboxLocking(
            params.mailbox_delivery_lock,
            params.deliver_lock_attempts,
            params.deliver_lock_delay,
            params.stale_lock_time,
        ),
        maildirs=MaildirWriter(params.myhostname, size_limit=params.mailbox_size_limit),
        default=_default_user(params, is_root=is_root),
        is_root=is_root,
    )
