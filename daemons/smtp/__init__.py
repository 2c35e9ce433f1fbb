"""smtp(8): deliver mail to other systems by SMTP, or by LMTP under the name lmtp(8).

Called by: qmgr. Asks: DNS, tables, tlsmgr (TLS sessions). Writes: the done marks. Tells: bounce,
defer, trace, verify; cleanup (notices to the postmaster); a collector of TLS reports.
Needs: the queue, the network; its tables and keys open before the jail.

One process has many deliveries under way, each a task of its own. Sessions are cached for the next
message to the same destination, where qmgr says that there is one.

walk           one request: over its destinations and servers; route: one of them; cache: cached
               sessions
conversation   one message in one session; session: an SMTP session, with tls_start and logins
outgoing       the message as one server gets it, with generic, checks, content
ledger         the outcome of each recipient; failure: reasons, their texts and status codes
shared         what all deliveries share, from settings, tls_policy, tlsrpt, replyfilter, pix
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from daemons.smtp.checks import ContentChecks
from daemons.smtp.generic import GenericMaps
from daemons.smtp.logins import Logins, open_logins
from daemons.smtp.outgoing import Outgoing
from daemons.smtp.pix import PixWorkarounds
from daemons.smtp.recording import Notices
from daemons.smtp.replyfilter import ReplyFilter
from daemons.smtp.requiretls import open_requiretls
from daemons.smtp.settings import Settings, SmtpParams, load_settings, mime_limits
from daemons.smtp.shared import Decisions, SmtpClient, discard_title
from daemons.smtp.tls_policy import TlsPolicies, open_policies
from daemons.smtp.tls_setup import open_engine
from daemons.smtp.tlsrpt import Reporter, open_reporter
from daemons.smtp.walk import Walk
from libmail.agents.delivery import (
    Deferred,
    Delivery,
    DeliveryParams,
    DeliveryServices,
    delivery_handlers,
)
from libmail.agents.recipient_headers import recipient_header_obstacle
from libmail.agents.status_filter import StatusFilter, open_status_filter
from libmail.clients.cleanup import CleanupClient
from libmail.clients.notice import NoticeParams, Postmaster
from libmail.config.interfaces import address_families, own_interfaces
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Protocols, Resolver, search_options
from libmail.lookup.content_checks import CheckTables
from libmail.lookup.context import LiveLookups
from libmail.lookup.next_hop import service_port
from libmail.lookup.reply_filter import ReplyFilter as DnsReplyFilter
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import RewriteParams
from libmail.lookup.servers import ServerChoice
from libmail.lookup.tlsa import DaneParams
from libmail.lookup.watched import WatchedPeers
from libmail.message.headers import with_cut_fields
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions, TableRetry

if TYPE_CHECKING:
    from daemons.smtp.handshakes import Handshakes

__all__ = ["SERVICE", "Prepared", "prepare", "start"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is read and opened before the jail."""

    settings: Settings
    delivery: DeliveryParams
    status_filter: StatusFilter
    decisions: Decisions
    engine: "Handshakes | None"
    reporter: Reporter | None
    generic: GenericMaps
    checks: ContentChecks
    notices: NoticeParams


def _own_addresses(params: SmtpParams) -> frozenset[str]:
    found = own_interfaces(params.inet_interfaces, params.inet_protocols)
    if params.proxy_interfaces:
        found += own_interfaces(params.proxy_interfaces, params.inet_protocols)
    return frozenset(str(one.address) for one in found)


def _protocols(params: SmtpParams) -> Protocols:
    versions = address_families(params.inet_protocols)
    if versions == (4,):
        return "ipv4"
    return "ipv6" if versions == (6,) else "all"


def _generic(
    params: SmtpParams, rewrite: RewriteParams, prefix: str, options: TableOptions
) -> GenericMaps:
    return GenericMaps(
        Maps(f"{prefix}_generic_maps", params.smtp_generic_maps, options),
        Rewriter(rewrite),
        delimiters=params.recipient_delimiter,
        propagate="generic" in params.propagate_unmatched_extensions,
        origin=params.myorigin,
        local=StringList("mydestination", params.mydestination, options),
    )


def _checks(params: SmtpParams, prefix: str, options: TableOptions) -> ContentChecks:
    options = replace(options, utf8=False)  # content may be in any encoding

    specs = (
        params.smtp_header_checks, params.smtp_mime_header_checks,
        params.smtp_nested_header_checks, params.smtp_body_checks,
    )  # fmt: skip
    tables = CheckTables.open(f"{prefix}_", specs, options)
    return ContentChecks(tables, mime_limits(params), line_limit=params.line_length_limit)


def _decisions(
    params: SmtpParams,
    tls: TlsPolicies,
    dane: DaneParams,
    logins: Logins | None,
    options: TableOptions,
    *,
    watched: WatchedPeers,
    lmtp: bool,
) -> Decisions:
    prefix = "lmtp" if lmtp else "smtp"

    def maps(name: str, specs: tuple[str, ...]) -> Maps:
        return Maps(f"{prefix}_{name}", specs, options)

    service = params.smtp_tcp_port
    choice = ServerChoice(
        params, _protocols(params), _own_addresses(params), service=service, lmtp=lmtp
    )
    resolver = Resolver(
        search=search_options(f"{prefix}_dns_resolver_options", params.smtp_dns_resolver_options),
        dnssec=params.smtp_dns_support_level == "dnssec",
        probe=params.dnssec_probe,
        reply_filter=DnsReplyFilter(maps("dns_reply_filter", params.smtp_dns_reply_filter)),
    )
    native = NativeResolver() if choice.uses_native else None
    tables = {
        **tls.tables,
        discard_title(lmtp=lmtp): params.smtp_discard_ehlo_keyword_address_maps,
    }
    opened = {title: Maps(title, specs, options) for title, specs in tables.items()}
    lists = {"use_srv_lookup": StringList("use_srv_lookup", params.use_srv_lookup, options)}
    return Decisions(
        lookups=LiveLookups({}, maps=opened, lists=lists, resolver=resolver, native=native),
        choice=choice,
        default_port=service_port(service, known=params.known_tcp_ports),
        cache_destinations=StringList(
            f"{prefix}_connection_cache_destinations",
            params.smtp_connection_cache_destinations,
            options,
        ),
        tls=tls,
        dane=dane,
        pix=PixWorkarounds(params, maps("pix_workaround_maps", params.smtp_pix_workaround_maps)),
        reply_filter=ReplyFilter(maps("reply_filter", params.smtp_reply_filter)),
        watched=watched,
        logins=logins,
        requiretls=open_requiretls(params, prefix, options),
    )


def prepare(startup: Startup, *, lmtp: bool = False) -> Prepared:
    """For `Service`."""
    config = startup.config
    settings = load_settings(config, startup.arguments, lmtp=lmtp)
    params = settings.params
    prefix = "lmtp" if lmtp else "smtp"
    options = TableOptions.of(config)
    tls = open_policies(config, prefix)
    decisions = _decisions(
        params,
        tls,
        config.load(DaneParams, ("smtp_", "lmtp_") if lmtp else None),
        open_logins(config, prefix, options),
        options,
        watched=WatchedPeers(config),
        lmtp=lmtp,
    )
    return Prepared(
        settings=settings,
        delivery=config.load(DeliveryParams),
        status_filter=open_status_filter(
            config, f"{prefix}_delivery_status_filter", params.smtp_delivery_status_filter
        ),
        decisions=decisions,
        engine=open_engine(config, prefix, startup.approved) if tls.ever else None,
        reporter=open_reporter(config, prefix, decisions.lookups) if tls.ever else None,
        generic=_generic(params, startup.config.load(RewriteParams), prefix, options),
        checks=_checks(params, prefix, options),
        notices=config.load(NoticeParams),
    )


def _notices(prepared: Prepared) -> Notices:
    settings, timeout = prepared.settings, prepared.delivery.ipc_timeout
    pool = ServicePool(f"public/{settings.params.cleanup_service_name}", timeout=timeout)
    cleanup = CleanupClient(pool, timeout=timeout)
    return Notices(Postmaster(prepared.notices, cleanup), lmtp=settings.lmtp)


async def _outgoing(delivery: Delivery, prepared: Prepared) -> Outgoing:
    """The message with its addresses mapped by smtp_generic_maps. Raises TableRetry."""
    generic = prepared.generic
    request = delivery.request
    addresses = {request.sender, *(recipient.address for recipient in request.recipients)}
    mapped = {address: await generic.map(address) for address in addresses}
    if prepared.checks:
        return Outgoing(delivery, prepared.settings, mapped, None, prepared.checks, generic)
    limits = prepared.settings.mime_limits
    queued = delivery.file.header()
    header = with_cut_fields(queued, limits.field, limits.cut)
    mapped_header = await generic.map_header(header)
    if mapped_header is not None:
        header = mapped_header
    changed = None if header is queued else header
    return Outgoing(delivery, prepared.settings, mapped, changed)


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """For `Service`."""
    engine, reporter = prepared.engine, prepared.reporter
    client = SmtpClient(prepared.settings, prepared.decisions, _notices(prepared), engine, reporter)
    if engine is not None:
        engine.begin(runtime.spawn)
    if reporter is not None:
        reporter.begin(runtime.spawn)
    flags = prepared.settings.flags
    as_queued = not prepared.generic and not prepared.checks

    async def agent(delivery: Delivery) -> None:
        if flags.delivered_to or flags.original_to:
            obstacle = recipient_header_obstacle(
                delivery, delivered_to=flags.delivered_to, original_to=flags.original_to
            )
            if obstacle is not None:
                await delivery.finish_all(delivery.unfinished, obstacle)
                return
        if as_queued:
            outgoing = Outgoing(delivery, prepared.settings, {}, None)
        else:
            try:
                outgoing = await _outgoing(delivery, prepared)
            except TableRetry as error:
                outcome = Deferred(dsn="4.3.0", reason=f"local data error: {error}", relay="none")
                await delivery.finish_all(delivery.unfinished, outcome)
                return
        await Walk(client, delivery, outgoing).run()

    services = DeliveryServices.of(prepared.delivery, prepared.status_filter)
    handlers = delivery_handlers(runtime, agent, services)

    async def drain() -> None:
        client.cache.close()
        if reporter is not None:
            await reporter.drain()

    return replace(handlers, drain=drain)


SERVICE: Final = Service("smtp", prepare, start, reads_approved=True, network=True)
