"""The parameters of rewriting and resolving, which trivial-rewrite(8) reads."""

from dataclasses import dataclass
from typing import Final

from libmail.config import Config

__all__ = ["ResolveParams", "RewriteParams", "config_of_probes"]

_FOR_PROBES: Final = (
    "address_verify_default_transport",
    "address_verify_local_transport",
    "address_verify_relay_transport",
    "address_verify_relayhost",
    "address_verify_sender_dependent_default_transport_maps",
    "address_verify_sender_dependent_relayhost_maps",
    "address_verify_transport_maps",
    "address_verify_virtual_transport",
)


@dataclass(frozen=True, slots=True)
class RewriteParams:
    """How addresses are completed."""

    myorigin: str
    mydomain: str
    remote_header_rewrite_domain: str
    append_at_myorigin: bool
    append_dot_mydomain: bool
    swap_bangpath: bool
    allow_percent_hack: bool


@dataclass(frozen=True, slots=True)
class ResolveParams:
    """Where addresses go."""

    myhostname: str
    mydestination: tuple[str, ...]
    inet_interfaces: tuple[str, ...]
    inet_protocols: tuple[str, ...]
    proxy_interfaces: tuple[str, ...]
    virtual_alias_domains: tuple[str, ...]
    virtual_mailbox_domains: tuple[str, ...]
    relay_domains: tuple[str, ...]
    parent_domain_matches_subdomains: tuple[str, ...]
    local_transport: str
    virtual_transport: str
    relay_transport: str
    default_transport: str
    relayhost: str
    transport_maps: tuple[str, ...]
    relocated_maps: tuple[str, ...]
    relocated_prefix_enable: bool
    sender_dependent_relayhost_maps: tuple[str, ...]
    sender_dependent_default_transport_maps: tuple[str, ...]
    empty_address_relayhost_maps_lookup_key: str
    empty_address_default_transport_maps_lookup_key: str
    empty_address_recipient: str
    recipient_delimiter: str
    resolve_dequoted_address: bool
    resolve_null_domain: bool
    resolve_numeric_domain: bool
    swap_bangpath: bool
    allow_percent_hack: bool
    allow_min_user: bool
    smtputf8_enable: bool
    show_user_unknown_table_name: bool
    helpful_warnings: bool


def config_of_probes(config: Config) -> Config | None:
    """The configuration by which probes of verify(8) are routed; None: as all mail is.

    `address_verify_NAME` counts in place of each NAME.
    """
    prefix = "address_verify_"
    texts = {name.removeprefix(prefix): config.text(name) for name in _FOR_PROBES}
    if all(config.text(name) == text for name, text in texts.items()):
        return None
    return config.override([(name, text.replace("$", "$$")) for name, text in texts.items()])
