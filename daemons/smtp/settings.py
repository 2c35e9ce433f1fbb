"""The parameters of smtp(8) and lmtp(8), read once before the jail."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Final, NamedTuple

from daemons.smtp.content import USUAL_LIMIT
from libmail.config import Config
from libmail.config.interfaces import own_interfaces
from libmail.log import Fatal
from libmail.message.headers import cut_behind_piece
from libmail.message.mime import MimeLimits
from libmail.smtp.client import PHASES, Phase
from libmail.tls.levels import Level

__all__ = ["Flags", "Settings", "SmtpParams", "load_settings", "source_addresses"]

_FLAGS: Final = frozenset("DORX")


@dataclass(frozen=True, slots=True)
class SmtpParams:
    """Named as in main.cf; lmtp(8) takes lmtp_xxx for each smtp_xxx."""

    cleanup_service_name: str
    allow_srv_lookup_fallback: bool
    best_mx_transport: str
    disable_dns_lookups: bool
    disable_mime_output_conversion: bool
    dnssec_probe: str
    header_size_limit: int
    ignore_mx_lookup_error: bool
    ignore_srv_lookup_error: bool
    inet_interfaces: tuple[str, ...]
    inet_protocols: tuple[str, ...]
    ipc_timeout: float
    known_tcp_ports: tuple[str, ...]
    line_length_limit: int
    lmtp_assume_final: bool
    mime_boundary_length_limit: int
    mime_nesting_limit: int
    minimal_backoff_time: float
    mydestination: tuple[str, ...]
    myhostname: str
    myorigin: str
    propagate_unmatched_extensions: tuple[str, ...]
    proxy_interfaces: tuple[str, ...]
    recipient_delimiter: str
    relayhost: str
    requiretls_enable: bool
    smtp_address_preference: str
    smtp_address_verify_target: str
    smtp_always_send_ehlo: bool
    smtp_balance_inet_protocols: bool
    smtp_bind_address: str
    smtp_bind_address6: str
    smtp_bind_address_enforce: bool
    smtp_body_checks: tuple[str, ...]
    smtp_cname_overrides_servername: bool
    smtp_connect_timeout: float
    smtp_connection_cache_destinations: tuple[str, ...]
    smtp_connection_cache_on_demand: bool
    smtp_connection_cache_time_limit: float
    smtp_connection_reuse_count_limit: int
    smtp_connection_reuse_time_limit: float
    smtp_data_done_timeout: float
    smtp_data_init_timeout: float
    smtp_data_xfer_timeout: float
    smtp_defer_if_no_mx_address_found: bool
    smtp_delivery_status_filter: tuple[str, ...]
    smtp_discard_ehlo_keyword_address_maps: tuple[str, ...]
    smtp_discard_ehlo_keywords: tuple[str, ...]
    smtp_dns_reply_filter: tuple[str, ...]
    smtp_dns_resolver_options: tuple[str, ...]
    smtp_dns_support_level: str
    smtp_fallback_relay: tuple[str, ...]
    smtp_generic_maps: tuple[str, ...]
    smtp_header_checks: tuple[str, ...]
    smtp_helo_name: str
    smtp_helo_timeout: float
    smtp_host_lookup: tuple[str, ...]
    smtp_line_length_limit: int
    smtp_log_tls_feature_status: bool
    smtp_mail_timeout: float
    smtp_min_data_rate: int
    smtp_mime_header_checks: tuple[str, ...]
    smtp_mx_address_limit: int
    smtp_mx_session_limit: int
    smtp_nested_header_checks: tuple[str, ...]
    smtp_never_send_ehlo: bool
    smtp_per_request_deadline: bool
    smtp_pix_workaround_delay_time: float
    smtp_pix_workaround_maps: tuple[str, ...]
    smtp_pix_workaround_threshold_time: float
    smtp_pix_workarounds: tuple[str, ...]
    smtp_quit_timeout: float
    smtp_quote_rfc821_envelope: bool
    smtp_randomize_addresses: bool
    smtp_rcpt_timeout: float
    smtp_reply_filter: tuple[str, ...]
    smtp_requiretls_policy: tuple[str, ...]
    smtp_rset_timeout: float
    smtp_send_dummy_mail_auth: bool
    smtp_send_xforward_command: bool
    smtp_skip_5xx_greeting: bool
    smtp_skip_quit_response: bool
    smtp_starttls_timeout: float
    smtp_tcp_port: str
    smtp_tls_block_early_mail_reply: bool
    smtp_tls_note_starttls_offer: bool
    smtp_tls_wrappermode: bool
    smtp_xforward_timeout: float
    tcp_windowsize: int
    use_srv_lookup: tuple[str, ...]


class Flags(NamedTuple):
    """flags=DORX in master.cf: header lines to put in front, and that the delivery is final."""

    delivered_to: bool = False
    original_to: bool = False
    return_path: bool = False
    final: bool = False


@dataclass(frozen=True)
class Settings:
    """params: of the program that runs. limits: seconds for each phase, 0 for none. sources: the
    addresses to connect from, by address family, where that is not left to the system."""

    lmtp: bool
    params: SmtpParams
    flags: Flags
    limits: Mapping[Phase, float]
    sources: Mapping[int, str] = field(default_factory=dict)

    @cached_property
    def changes_content(self) -> bool:
        """Whether content may need a look although it is fit for SMTP: for header lines to put in
        front, and for a limit of its lines."""
        return self.flags != Flags() or 0 < self.params.smtp_line_length_limit < USUAL_LIMIT

    @property
    def mime_limits(self) -> MimeLimits:
        """For content whose structure is looked at."""
        return mime_limits(self.params)

    @property
    def min_rate(self) -> int:
        """Octets of content a second, where requests are limited as a whole; 0 where not."""
        params = self.params
        return params.smtp_min_data_rate if params.smtp_per_request_deadline else 0

    def wraps(self, level: Level) -> bool:
        """Whether TLS begins at once, without STARTTLS."""
        return self.params.smtp_tls_wrappermode and level.enforced


def mime_limits(params: SmtpParams) -> MimeLimits:
    """For content whose structure is looked at."""
    size_limit, line_limit = params.header_size_limit, params.line_length_limit
    return MimeLimits(
        nesting=params.mime_nesting_limit,
        boundary=params.mime_boundary_length_limit,
        field=size_limit,
        cut=lambda text: cut_behind_piece(text, size_limit, line_limit),
    )


def _parse_flags(arguments: tuple[str, ...]) -> Flags:
    letters = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name != "flags" or not equals or not _FLAGS.issuperset(value):
            raise Fatal(f"unknown attribute name: {argument}")
        letters += value
    return Flags("D" in letters, "O" in letters, "R" in letters, "X" in letters)


def load_settings(config: Config, arguments: tuple[str, ...], *, lmtp: bool) -> Settings:
    """Raises ConfigError and Fatal for what cannot be used."""
    prefix = ("smtp_", "lmtp_") if lmtp else None
    params = config.load(SmtpParams, prefix)
    values = {one.name: getattr(params, one.name) for one in fields(params)}
    limits = {phase: float(values[phase.timeout]) for phase in PHASES}
    flags = _parse_flags(arguments)
    if lmtp and params.lmtp_assume_final:
        flags = flags._replace(final=True)
    return Settings(lmtp, params, flags, limits, source_addresses(params))


def source_addresses(params: SmtpParams) -> dict[int, str]:
    """smtp_bind_address, smtp_bind_address6; else the one address that inet_interfaces has.

    Raises ConfigError.
    """
    own = own_interfaces(params.inet_interfaces, params.inet_protocols)
    found: dict[int, str] = {}
    for family, version, source in (
        (socket.AF_INET, 4, params.smtp_bind_address),
        (socket.AF_INET6, 6, params.smtp_bind_address6),
    ):
        mine = [one.address for one in own if one.address.version == version]
        if source:
            found[family] = source
        elif len(mine) == 1 and not mine[0].is_loopback:
            found[family] = str(mine[0])
    return found
