"""What postscreen(8) reads and opens before the jail: parameters, tables, the cache."""

from dataclasses import dataclass, replace
from typing import Final

from daemons.postscreen.access import AccessList, open_access_list
from daemons.postscreen.dnsbl import Sites, read_sites
from daemons.postscreen.params import PostscreenParams
from daemons.postscreen.screen_tests import Rules, rules_of
from libmail.config import Config
from libmail.config.errors import ExpansionError
from libmail.config.expand import expand
from libmail.config.interfaces import allows_ipv6
from libmail.log import LOG, Fatal
from libmail.lookup.client_rules import keyword_set
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList, StringList
from libmail.tables.registry import open_writable
from libmail.tables.table import TableOptions, TableRetry, WritableTable
from libmail.tls.errors import TlsConfigError
from libmail.tls.levels import Level
from libmail.tls.params import ServerTlsParams
from libmail.tls.server_level import server_level

__all__ = ["Prepared", "prepare"]

_PROXY_PROTOCOL: Final = "haproxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is read and opened before the jail.

    stressed: the parameters with `stress` set. names: postscreen_dnsbl_reply_map. interfaces:
    postscreen_allowlist_interfaces. discard: EHLO keywords to hide. footer: of refusals, in which
    client attributes have still to be filled in, with allowed characters. cache: None without
    postscreen_cache_map. tls: none, may, or encrypt.
    """

    params: PostscreenParams
    stressed: PostscreenParams
    rules: Rules
    sites: Sites
    names: Maps
    access: AccessList
    interfaces: AddressList
    command_filter: Maps
    forbidden: StringList
    discard: frozenset[str]
    discard_maps: Maps
    footer: str
    footer_maps: Maps
    allowed: str
    cache: WritableTable | None
    tls: Level

    @property
    def ipv6(self) -> bool:
        """Whether clients can have IPv6 addresses."""
        return allows_ipv6(self.params.inet_protocols)

    async def list_name(self, domain: str) -> str:
        """The name of a DNS list for replies: the real one may contain a password."""
        try:
            return await self.names.find(domain) or domain
        except TableRetry:
            return "a DNS list"


def prepare(config: Config) -> Prepared:
    """Read the configuration and open the tables. Raises Fatal, ConfigError."""
    params = config.load(PostscreenParams)
    protocol = params.postscreen_upstream_proxy_protocol
    if protocol not in ("", _PROXY_PROTOCOL):
        raise Fatal(f"unsupported postscreen_upstream_proxy_protocol value: {protocol}")
    options = TableOptions.of(config)

    def maps(title: str, items: tuple[str, ...]) -> Maps:
        return Maps(f"postscreen_{title}", items, options)

    filtered = maps("command_filter", params.postscreen_command_filter)
    hidden = params.postscreen_discard_ehlo_keyword_address_maps
    return Prepared(
        params=params,
        stressed=config.override([("stress", "yes")]).load(PostscreenParams),
        rules=rules_of(params),
        sites=read_sites(params.postscreen_dnsbl_sites),
        names=maps("dnsbl_reply_map", params.postscreen_dnsbl_reply_map),
        access=open_access_list(params, options),
        interfaces=AddressList(
            "postscreen_allowlist_interfaces", params.postscreen_allowlist_interfaces, options
        ),
        command_filter=filtered,
        forbidden=StringList(
            "postscreen_forbidden_commands", params.postscreen_forbidden_commands, options
        ),
        discard=keyword_set(params.postscreen_discard_ehlo_keywords),
        discard_maps=maps("discard_ehlo_keyword_address_maps", hidden),
        footer=_footer(config, params.postscreen_reject_footer),
        footer_maps=maps("reject_footer_maps", params.postscreen_reject_footer_maps),
        allowed=_allowed(params),
        cache=_cache(params.postscreen_cache_map, options),
        tls=_level(config),
    )


def _level(config: Config) -> Level:
    """Raises Fatal."""
    params = config.load(ServerTlsParams, ("smtpd_", "postscreen_"))
    try:
        return server_level(replace(params, smtpd_tls_wrappermode=False)).level
    except TlsConfigError as error:
        raise Fatal(error.reason) from None


def _allowed(params: PostscreenParams) -> str:
    """postscreen_expansion_filter; a lone reference to that of smtpd stands for it."""
    text = params.postscreen_expansion_filter
    like_smtpd = text in ("$smtpd_expansion_filter", "${smtpd_expansion_filter}")
    return params.smtpd_expansion_filter if like_smtpd else text


def _footer(config: Config, text: str) -> str:
    """postscreen_reject_footer with main.cf parameters expanded, and other names left in place.

    Returns "", with a warning, for a text that cannot be expanded.
    """

    def value(name: str) -> str:
        raw = config.raw(name)
        return f"$${{{name}}}" if raw is None else raw

    try:
        return expand(text, value)
    except ExpansionError as error:
        LOG.warning(f"postscreen_reject_footer: {error}")
        return ""


def _cache(spec: str, options: TableOptions) -> WritableTable | None:
    """The table of results. It has to exist: without it no client would ever be known."""
    return open_writable(spec, replace(options, strict=True, fold=False)) if spec else None
