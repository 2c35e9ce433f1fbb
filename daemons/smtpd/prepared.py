"""What smtpd(8) reads and opens before the jail: parameters, tables, the resolver."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from daemons.smtpd.before_queue import FilterSettings, filter_settings
from daemons.smtpd.guessing import GuessParams
from daemons.smtpd.logins import OpenedLogins, open_logins
from daemons.smtpd.milters import OpenedMilters
from daemons.smtpd.params import SmtpdParams
from daemons.smtpd.rates import Limits, open_limits
from daemons.smtpd.tls_setup import TlsSetup, open_tls
from libmail.clients.cleanup import OVERRIDES, without_overridden
from libmail.clients.flush import FlushClientParams, flush_domains
from libmail.clients.milters import MilterParams, Milters
from libmail.clients.notice import NoticeParams
from libmail.config import Config, ConfigError
from libmail.config.interfaces import allows_ipv6
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Resolver
from libmail.files.approved import ApprovedFiles
from libmail.ipc.messages import CleanupFlag
from libmail.log import LOG
from libmail.lookup.context import LiveLookups, Services
from libmail.lookup.opened import OpenedRestrictions, open_restrictions
from libmail.lookup.params import RestrictionParams
from libmail.lookup.watched import WatchedPeers
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList, DomainList, StringList
from libmail.tables.table import TableOptions

__all__ = ["Prepared", "open_tables"]

_ALWAYS: Final = CleanupFlag.FILTER | CleanupFlag.BCC | CleanupFlag.MAP
_UNRESTRICTED: Final = (
    *((f"smtpd_{stage}_restrictions", "") for stage in ("client", "helo", "sender", "relay")),
    *(
        (f"smtpd_{stage}_restrictions", "")
        for stage in ("recipient", "data", "end_of_data", "etrn")
    ),
    *((name, "") for name in ("local_recipient_maps", "relay_recipient_maps")),
    *((name, "") for name in ("virtual_mailbox_maps", "virtual_alias_maps", "canonical_maps")),
    *((name, "") for name in ("sender_canonical_maps", "recipient_canonical_maps")),
    ("smtpd_reject_unlisted_sender", "no"),
    ("smtpd_peername_lookup", "no"),
    ("smtpd_forbid_unauth_pipelining", "no"),
    ("smtpd_forbid_bare_newline", "no"),
    ("notify_classes", ""),
    *((name, "") for name in ("smtpd_milters", "smtpd_milter_maps", "smtpd_tls_security_level")),
    *((name, "no") for name in ("smtpd_enforce_tls", "smtpd_tls_wrappermode", "smtpd_use_tls")),
    *((f"smtpd_authorized_{what}_hosts", "") for what in ("xclient", "xforward")),
    ("smtpd_upstream_proxy_protocol", ""),
    ("smtpd_proxy_filter", ""),
    *((f"smtpd_reject_{what}_maps", "") for what in ("filter", "footer")),
    ("smtpd_sasl_auth_enable", "no"),
    ("smtpd_client_connection_count_limit", "0"),
    *(
        (f"smtpd_client_{what}_rate_limit", "0")
        for what in ("auth", "connection", "message", "new_tls_session", "recipient")
    ),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What parameters mean together.

    cleanup_flags: CleanupFlag bits of every message. must_encrypt: clients may do nothing in the
    clear. has_milters: some are configured, and wanted. ipv6: clients can have such addresses.
    """

    cleanup_flags: int
    must_encrypt: bool
    has_milters: bool
    ipv6: bool


def _options(params: SmtpdParams, tls: TlsSetup, *, milters: bool) -> Options:
    overrides = params.receive_override_options
    for word in overrides:
        if word not in OVERRIDES:
            LOG.warning(f'unknown receive_override_options value "{word}"')
    flags = without_overridden(_ALWAYS, overrides)
    return Options(
        cleanup_flags=int(flags),
        must_encrypt=tls.level.enforced,
        has_milters=milters and "no_milters" not in overrides,
        ipv6=allows_ipv6(params.inet_protocols),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is read and opened before the jail.

    maps, hosts, lists: what decisions about clients and commands look into, besides restrictions.
    """

    config: Config
    params: SmtpdParams
    options: Options
    restrictions: OpenedRestrictions
    maps: tuple[Maps, ...]
    hosts: tuple[AddressList, ...]
    lists: tuple[StringList, ...]
    milters: OpenedMilters
    notice_params: NoticeParams
    flush_params: FlushClientParams
    flush_domains: DomainList
    resolver: NativeResolver
    limits: Limits
    guesses: GuessParams
    logins: OpenedLogins
    tls: TlsSetup
    filter: FilterSettings | None
    footer_maps: Maps
    reject_maps: Maps
    watched: WatchedPeers

    def lookups(self, services: Services) -> LiveLookups:
        """What decisions ask, in the event loop. services: those that answer."""
        opened = self.restrictions
        return LiveLookups(
            services,
            maps={**opened.maps, **{maps.title: maps for maps in self.maps}},
            hosts={**opened.hosts, **{hosts.title: hosts for hosts in self.hosts}},
            lists={words.title: words for words in self.lists},
            resolver=opened.resolver,
        )


def _open_milters(config: Config, params: SmtpdParams) -> OpenedMilters:
    try:
        return OpenedMilters(Milters(config.load(MilterParams)), params.smtpd_milters)
    except ValueError as error:
        raise ConfigError(f"smtpd_milters: {error}") from None


def open_tables(
    config: Config,
    service: str = "smtp",
    *,
    guard: bool = True,
    stand_alone: bool = False,
    native: NativeResolver | None = None,
    dns: Resolver | None = None,
    approved: ApprovedFiles | None = None,
) -> Prepared:
    """Read the parameters and open all tables.

    service: the first column of master.cf. guard: insist on relay control. stand_alone: for a
    local user, whom nothing restricts. native, dns: look names up, in place of the usual
    resolvers. approved: for certificates that are renewed. Raises Fatal, ConfigError.
    """
    if stand_alone:
        config = config.override(_UNRESTRICTED)
    params = config.load(SmtpdParams)
    options = TableOptions.of(config)
    restriction_params = config.load(RestrictionParams)
    flush_params = config.load(FlushClientParams)
    parents = frozenset(restriction_params.parent_domain_matches_subdomains)

    tls = open_tls(config, service, options, approved)
    milter_maps = Maps("smtpd_milter_maps", params.smtpd_milter_maps, options)
    return Prepared(
        config=config,
        params=params,
        options=_options(params, tls, milters=bool(params.smtpd_milters or milter_maps)),
        restrictions=open_restrictions(config, restriction_params, guard=guard, resolver=dns),
        maps=(*_maps(params, options), milter_maps),
        hosts=tuple(_hosts(params, parents, options)),
        lists=(
            StringList("smtpd_noop_commands", params.smtpd_noop_commands, options),
            StringList("smtpd_forbidden_commands", params.smtpd_forbidden_commands, options),
        ),
        milters=_open_milters(config, params),
        notice_params=config.load(NoticeParams),
        flush_params=flush_params,
        flush_domains=flush_domains(flush_params),
        resolver=native or NativeResolver(),
        limits=open_limits(config, service),
        guesses=config.load(GuessParams),
        logins=open_logins(config),
        tls=tls,
        filter=filter_settings(params),
        footer_maps=Maps("smtpd_reject_footer_maps", params.smtpd_reject_footer_maps, options),
        reject_maps=Maps("smtpd_reject_filter_maps", params.smtpd_reject_filter_maps, options),
        watched=WatchedPeers(config),
    )


def _maps(params: SmtpdParams, options: TableOptions) -> Iterator[Maps]:
    title = "smtpd_discard_ehlo_keyword_address_maps"
    yield Maps(title, params.smtpd_discard_ehlo_keyword_address_maps, options)
    yield Maps("local_header_rewrite_clients", _address_maps(params), options)
    yield Maps("smtpd_command_filter", params.smtpd_command_filter, options)


def _hosts(
    params: SmtpdParams, parents: frozenset[str], options: TableOptions
) -> Iterator[AddressList]:
    """parents: parent_domain_matches_subdomains."""
    for title, items, kin in (
        (
            "smtpd_forbid_bare_newline_exclusions",
            params.smtpd_forbid_bare_newline_exclusions,
            "mynetworks",
        ),
        ("smtpd_authorized_verp_clients", params.smtpd_authorized_verp_clients, ""),
        ("smtpd_authorized_xclient_hosts", params.smtpd_authorized_xclient_hosts, ""),
        ("smtpd_authorized_xforward_hosts", params.smtpd_authorized_xforward_hosts, ""),
    ):
        yield AddressList(title, items, options, parent=bool(parents & {title, kin}))


def _address_maps(params: SmtpdParams) -> list[str]:
    """The tables that `check_address_map` names."""
    return [word for word in params.local_header_rewrite_clients if ":" in word]
