"""Opening what decisions look into, which happens before the jail."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from libmail.config import Config
from libmail.config.interfaces import own_interfaces
from libmail.dns.native import ServerAddresses
from libmail.dns.resolver import Resolver
from libmail.lookup.context import LiveLookups
from libmail.lookup.destination import LocalDomains, proxy_addresses
from libmail.lookup.lists import compile_lists
from libmail.lookup.params import RestrictionParams
from libmail.lookup.policies import PolicySettings
from libmail.lookup.reply_filter import ReplyFilter
from libmail.lookup.restrictions import Restrictions
from libmail.lookup.routing_params import ResolveParams
from libmail.net.endpoint import EndpointOpener, parse_endpoint
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList, DomainList, StringList
from libmail.tables.table import TableOptions

__all__ = ["OpenedRestrictions", "open_restrictions", "open_routing", "own_addresses"]

_MAPS: Final = (
    "canonical_maps",
    "local_recipient_maps",
    "rbl_reply_maps",
    "recipient_canonical_maps",
    "relay_clientcerts",
    "relay_recipient_maps",
    "sender_canonical_maps",
    "smtpd_sender_login_maps",
    "virtual_alias_maps",
    "virtual_mailbox_maps",
)


@dataclass(frozen=True, slots=True)
class OpenedRestrictions:
    """Restrictions with their tables open. params: what they read. policies: policy servers."""

    params: RestrictionParams
    restrictions: Restrictions
    maps: Mapping[str, Maps]
    hosts: Mapping[str, AddressList]
    resolver: Resolver | None
    policies: Mapping[PolicySettings, EndpointOpener]


def open_restrictions(
    config: Config,
    params: RestrictionParams,
    *,
    guard: bool = True,
    resolver: Resolver | None = None,
) -> OpenedRestrictions:
    """Compile the lists of a configuration and open their tables. Raises Fatal, ConfigError.

    resolver: asks the DNS, in place of the usual one.
    """
    classes = {name: config.list(name) for name in params.smtpd_restriction_classes}
    compiled = compile_lists(params, classes, guard=guard)
    options = TableOptions.of(config)
    maps = {name: Maps(name, config.list(name), options) for name in _MAPS}
    for table in sorted(compiled.tables):
        maps[table] = Maps(table, (table,), options)
    parents = params.parent_domain_matches_subdomains
    hosts = {
        title: AddressList(title, specs, options, parent=title in parents)
        for title, specs in (
            ("mynetworks", params.mynetworks),
            ("inet_interfaces", own_addresses(config)),
            ("proxy_interfaces", config.list("proxy_interfaces")),
            ("permit_mx_backup_networks", params.permit_mx_backup_networks),
        )
    }
    dns_filter = Maps("smtpd_dns_reply_filter", params.smtpd_dns_reply_filter, options)
    resolver = resolver or Resolver(reply_filter=ReplyFilter(dns_filter))
    policies = {
        settings: EndpointOpener(parse_endpoint(settings.endpoint), ServerAddresses)
        for settings in compiled.policies
    }
    restrictions = Restrictions(params, compiled)
    return OpenedRestrictions(params, restrictions, maps, hosts, resolver, policies)


def own_addresses(config: Config) -> tuple[str, ...]:
    """The addresses of this machine that inet_interfaces names, as items of a list of networks.

    Raises ConfigError.
    """
    interfaces = own_interfaces(config.list("inet_interfaces"), config.list("inet_protocols"))
    addresses = [interface.address for interface in interfaces]
    return tuple(f"[{address}]" if address.version == 6 else str(address) for address in addresses)


def open_routing(config: Config, params: ResolveParams) -> LiveLookups:
    """What the resolution of addresses asks: domains and tables. Raises Fatal, ConfigError."""
    options = TableOptions.of(config)
    literal = replace(options, literal=True)  # where mail goes is not for its sender to say
    routes = {
        "transport_maps": params.transport_maps,
        "sender_dependent_relayhost_maps": params.sender_dependent_relayhost_maps,
        "sender_dependent_default_transport_maps": params.sender_dependent_default_transport_maps,
    }
    maps = {name: Maps(name, tables, literal) for name, tables in routes.items()}
    maps["relocated_maps"] = Maps("relocated_maps", params.relocated_maps, options)
    virtual = {
        "virtual_alias_domains": params.virtual_alias_domains,
        "virtual_mailbox_domains": params.virtual_mailbox_domains,
    }
    own = own_interfaces(params.inet_interfaces, params.inet_protocols)
    addresses = [*(one.address for one in own), *proxy_addresses(params.proxy_interfaces)]
    names = StringList("mydestination", params.mydestination, options)
    parent = "relay_domains" in params.parent_domain_matches_subdomains
    return LiveLookups(
        {},
        maps=maps,
        lists={
            "mydestination": LocalDomains(names, addresses),
            "relay_domains": DomainList(
                "relay_domains", params.relay_domains, options, parent=parent
            ),
            **{name: StringList(name, domains, options) for name, domains in virtual.items()},
        },
    )
