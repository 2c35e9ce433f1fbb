"""What all sessions of a process share: parameters, tables, clients of other services."""

import os
import time
from dataclasses import dataclass, field
from typing import Final

from daemons.smtpd.ehlo import ehlo_reply, keyword_set
from daemons.smtpd.params import SmtpdParams
from daemons.smtpd.peer import PeerNames
from daemons.smtpd.transaction import Resolver
from libmail.clients.cleanup import MailClient
from libmail.clients.flush import FlushClient, FlushClientParams, flush_domains
from libmail.clients.notice import NoticeParams, Postmaster
from libmail.config import Config
from libmail.config.declare import split_list
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Protocols
from libmail.ipc.messages import CleanupFlag
from libmail.log import LOG
from libmail.lookup.context import LookupFailure, Lookups
from libmail.lookup.facts import Facts, Verdict
from libmail.lookup.opened import OpenedRestrictions, open_restrictions
from libmail.lookup.params import RestrictionParams
from libmail.message.dates import rfc5322_date
from libmail.milters import Unfiltered, unfiltered
from libmail.smtp.reply import Reply
from libmail.smtp.server import BareNewline
from libmail.tables.cache import ExpiringCache
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList, DomainList, StringList
from libmail.tables.table import TableOptions, TableRetry

__all__ = ["Prepared", "Server", "open_tables"]

_CACHE_SIZE: Final = 5000
_CACHE_LIFE: Final = 60.0
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
    *((name, "no") for name in ("smtpd_enforce_tls", "smtpd_tls_wrappermode")),
)
_OVERRIDES: Final = {
    "no_header_body_checks": CleanupFlag.FILTER,
    "no_milters": CleanupFlag.MILTER,
    "no_address_mappings": CleanupFlag.BCC | CleanupFlag.MAP,
    "no_unknown_recipient_checks": CleanupFlag(0),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is read and opened before the jail."""

    config: Config
    params: SmtpdParams
    restrictions: OpenedRestrictions
    command_filter: Maps
    discard_maps: Maps
    noop_commands: StringList
    forbidden_commands: StringList
    newline_exclusions: AddressList
    address_map: Maps
    milter_maps: Maps
    verp_clients: AddressList
    notice_params: NoticeParams
    flush_params: FlushClientParams
    flush_domains: DomainList
    resolver: NativeResolver


def open_tables(config: Config, *, guard: bool = True, stand_alone: bool = False) -> Prepared:
    """Read the parameters and open all tables.

    guard: insist on relay control. stand_alone: for a local user, whom nothing restricts.
    Raises Fatal, ConfigError.
    """
    if stand_alone:
        config = config.override(_UNRESTRICTED)
    params = config.load(SmtpdParams)
    options = TableOptions.of(config)
    restriction_params = config.load(RestrictionParams)
    flush_params = config.load(FlushClientParams)
    parents = restriction_params.parent_domain_matches_subdomains
    exclusions = "smtpd_forbid_bare_newline_exclusions"
    return Prepared(
        config,
        params,
        open_restrictions(config, restriction_params, guard=guard),
        Maps("smtpd_command_filter", params.smtpd_command_filter, options),
        Maps(
            "smtpd_discard_ehlo_keyword_address_maps",
            params.smtpd_discard_ehlo_keyword_address_maps,
            options,
        ),
        StringList("smtpd_noop_commands", params.smtpd_noop_commands, options),
        StringList("smtpd_forbidden_commands", params.smtpd_forbidden_commands, options),
        AddressList(
            exclusions,
            params.smtpd_forbid_bare_newline_exclusions,
            options,
            parent=exclusions in parents or "mynetworks" in parents,
        ),
        Maps("local_header_rewrite_clients", _address_maps(params), options),
        Maps("smtpd_milter_maps", params.smtpd_milter_maps, options),
        AddressList(
            "smtpd_authorized_verp_clients",
            params.smtpd_authorized_verp_clients,
            options,
            parent="smtpd_authorized_verp_clients" in parents,
        ),
        config.load(NoticeParams),
        flush_params,
        flush_domains(flush_params),
        NativeResolver(),
    )


def _address_maps(params: SmtpdParams) -> list[str]:
    """The tables that `check_address_map` names."""
    return [word for word in params.local_header_rewrite_clients if ":" in word]


def _must_encrypt(params: SmtpdParams) -> bool:
    """Whether clients may do nothing in the clear."""
    level = params.smtpd_tls_security_level.lower()
    enforced = level not in ("none", "may") if level else params.smtpd_enforce_tls
    return enforced or params.smtpd_tls_wrappermode


def _protocols(params: SmtpdParams) -> Protocols:
    """The kinds of addresses that a client can have."""
    match [word.lower() for word in params.inet_protocols]:
        case ["ipv4"]:
            return "ipv4"
        case ["ipv6"]:
            return "ipv6"
    return "all"


@dataclass(slots=True)
class Server:
    """Shared by the sessions of a process."""

    prepared: Prepared
    rewrite: Resolver
    cleanup: MailClient
    stand_alone: bool = False
    stopping: bool = False
    peers: PeerNames = field(init=False)
    lookups: Lookups = field(init=False)
    flush: FlushClient = field(init=False)
    postmaster: Postmaster = field(init=False)
    params: SmtpdParams = field(init=False)
    cleanup_flags: int = field(init=False)
    check_unlisted: bool = field(init=False)
    filters_commands: bool = field(init=False)
    ignores_commands: bool = field(init=False)
    must_encrypt: bool = field(init=False)
    has_milters: bool = field(init=False)
    _ehlo: dict[tuple[frozenset[str], bool], Reply] = field(default_factory=dict)
    _discard: frozenset[str] = frozenset()
    _newlines: ExpiringCache[str, BareNewline] = field(init=False)
    _contexts: ExpiringCache[str, str] = field(init=False)
    _date: tuple[int, str] = (0, "")
    _space_checked: float = 0.0
    _space: int = 0

    def __post_init__(self) -> None:
        prepared = self.prepared
        params = self.params = prepared.params
        lookup = params.smtpd_peername_lookup
        self.peers = PeerNames(prepared.resolver, _protocols(params), lookup=lookup)
        self.lookups = prepared.restrictions.lookups(self.rewrite.resolve_completed)
        self.flush = FlushClient(prepared.flush_params, prepared.flush_domains)
        self.postmaster = Postmaster(prepared.notice_params, self.cleanup)
        flags = CleanupFlag.FILTER | CleanupFlag.BCC | CleanupFlag.MAP | CleanupFlag.MILTER
        for word in params.receive_override_options:
            if word not in _OVERRIDES:
                LOG.warning(f'unknown receive_override_options value "{word}"')
            flags &= ~_OVERRIDES.get(word, CleanupFlag(0))
        self.cleanup_flags = int(flags)
        self.check_unlisted = "no_unknown_recipient_checks" not in params.receive_override_options
        self.filters_commands = bool(prepared.command_filter)
        self.ignores_commands = bool(prepared.noop_commands)
        self.must_encrypt = _must_encrypt(params)
        wanted = bool(params.smtpd_milters or prepared.milter_maps)
        self.has_milters = wanted and "no_milters" not in params.receive_override_options
        self._discard = keyword_set(params.smtpd_discard_ehlo_keywords)
        self._newlines = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)
        self._contexts = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)

    # what a client is offered

    async def discarded(self, address: str) -> frozenset[str]:
        """EHLO keywords that a client does not get to see. A failing table hides nothing more."""
        maps = self.prepared.discard_maps
        if maps:
            try:
                found = await maps.find(address)
            except TableRetry:
                found = None
            if found is not None:
                return keyword_set(found.replace(",", " ").split())
        return self._discard

    def ehlo(self, discard: frozenset[str], *, verp: bool) -> Reply:
        """The answer to EHLO."""
        reply = self._ehlo.get((discard, verp))
        if reply is None:
            params = self.params
            reply = ehlo_reply(
                params.myhostname,
                params.message_size_limit,
                discard,
                vrfy=not params.disable_vrfy_command,
                smtputf8=params.smtputf8_enable,
                verp=verp,
            )
            if len(self._ehlo) < 100:
                self._ehlo[discard, verp] = reply
        return reply

    async def allows_verp(self, facts: Facts) -> bool:
        """Whether the client may ask for VERP; not while a table fails."""
        clients = self.prepared.verp_clients
        try:
            return bool(clients) and await clients.match(facts.client_name, facts.client_address)
        except TableRetry as err:
            LOG.warning(f"{clients.title}: {err}")
            return False

    async def newlines(self, name: str, address: str) -> BareNewline:
        """How lines of a client end."""
        known = self._newlines.get(address)
        if known is None:
            known = await self._decide_newlines(name, address)
            self._newlines.put(address, known)
        return known

    async def _decide_newlines(self, name: str, address: str) -> BareNewline:
        setting = self.params.smtpd_forbid_bare_newline
        if setting in ("no", "note"):
            return BareNewline.ALLOW
        try:
            if await self.prepared.newline_exclusions.match(name, address):
                return BareNewline.ALLOW
        except TableRetry:
            pass  # a client that cannot be excluded now is not
        return BareNewline.REJECT if setting == "reject" else BareNewline.NORMALIZE

    async def rewrite_context(self, facts: Facts) -> str:
        """ "local" for clients whose headers are completed with our domain, or another domain."""
        known = self._contexts.get(facts.client_address)
        if known is None:
            local = await self._is_local(facts)
            known = "local" if local else self.params.remote_header_rewrite_domain
            self._contexts.put(facts.client_address, known)
        return known

    async def _is_local(self, facts: Facts) -> bool:
        titles = {"permit_inet_interfaces": "inet_interfaces", "permit_mynetworks": "mynetworks"}
        name, address = facts.client_name, facts.client_address
        for word in self.params.local_header_rewrite_clients:
            try:
                if word.lower() in titles:
                    if await self.lookups.host_in_list(titles[word.lower()], name, address):
                        return True
                elif ":" in word and await self.prepared.address_map.find(address) is not None:
                    return True
            except (LookupFailure, TableRetry) as err:
                LOG.warning(f"local_header_rewrite_clients: {err}")
        return False

    async def unfiltered(self, address: str) -> Unfiltered:
        """What happens to mail of a client that Milters should see."""
        params = self.params
        milters = params.smtpd_milters
        try:
            found = await self.prepared.milter_maps.find(address)
        except TableRetry as err:
            LOG.warning(f"smtpd_milter_maps: {err}")
            return unfiltered(("unknown",), "tempfail")
        if found is not None:
            milters = () if found.upper() == "DISABLE" else split_list(found)
        return unfiltered(milters, params.milter_default_action)

    # time and space

    def date(self) -> str:
        """Now, as in a header; made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, rfc5322_date(now))
        return self._date[1]

    def free_space(self) -> int:
        """Octets that are free for the queue; looked up once a second."""
        now = time.monotonic()
        if now - self._space_checked > 1.0:
            status = os.statvfs(".")
            self._space = status.f_bavail * status.f_frsize
            self._space_checked = now
        return self._space

    # decisions

    async def connect(self, facts: Facts) -> Verdict:
        """At the connection."""
        return await self.prepared.restrictions.restrictions.connect(facts, self.lookups)

    async def helo(self, facts: Facts) -> Verdict:
        """At HELO and EHLO."""
        return await self.prepared.restrictions.restrictions.helo(facts, self.lookups)

    async def mail(self, facts: Facts) -> Verdict:
        """At MAIL."""
        return await self.prepared.restrictions.restrictions.mail(facts, self.lookups)

    async def recipient(self, facts: Facts) -> Verdict:
        """At RCPT and VRFY."""
        restrictions = self.prepared.restrictions.restrictions
        return await restrictions.recipient(facts, self.lookups, unlisted=self.check_unlisted)

    async def data(self, facts: Facts) -> Verdict:
        """At DATA and the first BDAT."""
        return await self.prepared.restrictions.restrictions.data(facts, self.lookups)

    async def end_of_data(self, facts: Facts) -> Verdict:
        """When the content is complete."""
        return await self.prepared.restrictions.restrictions.end_of_data(facts, self.lookups)

    async def etrn(self, facts: Facts) -> Verdict:
        """At ETRN."""
        return await self.prepared.restrictions.restrictions.etrn(facts, self.lookups)
