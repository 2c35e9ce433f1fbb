"""The parameters that smtpd(8) reads, besides those of the restrictions."""

from dataclasses import dataclass

__all__ = ["SmtpdParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpdParams:
    """See postconf(5)."""

    address_verify_service_name: str
    cleanup_service_name: str
    content_filter: str
    disable_vrfy_command: bool
    default_verp_delimiters: str
    bounce_notice_recipient: str
    inet_protocols: tuple[str, ...]
    ipc_idle: float
    ipc_timeout: float
    ipc_ttl: float
    line_length_limit: int
    local_header_rewrite_clients: tuple[str, ...]
    mail_name: str
    message_size_limit: int
    myhostname: str
    pickup_service_name: str
    queue_minfree: int
    receive_override_options: tuple[str, ...]
    remote_header_rewrite_domain: str
    requiretls_enable: bool
    requiretls_esmtp_header: bool
    rewrite_service_name: str
    smtpd_authorized_verp_clients: tuple[str, ...]
    smtpd_authorized_xclient_hosts: tuple[str, ...]
    smtpd_authorized_xforward_hosts: tuple[str, ...]
    smtpd_banner: str
    smtpd_client_port_logging: bool
    smtpd_command_filter: tuple[str, ...]
    smtpd_delay_open_until_valid_rcpt: bool
    smtpd_discard_ehlo_keyword_address_maps: tuple[str, ...]
    smtpd_discard_ehlo_keywords: tuple[str, ...]
    smtpd_error_sleep_time: float
    smtpd_expansion_filter: str
    smtpd_forbid_bare_newline: str
    smtpd_forbid_bare_newline_exclusions: tuple[str, ...]
    smtpd_forbid_bare_newline_reject_code: int
    smtpd_forbid_unauth_pipelining: bool
    smtpd_forbidden_commands: tuple[str, ...]
    smtpd_hard_error_limit: int
    smtpd_helo_required: bool
    smtpd_hide_client_session: bool
    smtpd_history_flush_threshold: int
    smtpd_junk_command_limit: int
    smtpd_milter_maps: tuple[str, ...]
    smtpd_milters: tuple[str, ...]
    smtpd_min_data_rate: int
    smtpd_noop_commands: tuple[str, ...]
    smtpd_peername_lookup: bool
    smtpd_per_request_deadline: bool
    smtpd_proxy_ehlo: str
    smtpd_proxy_filter: str
    smtpd_proxy_options: tuple[str, ...]
    smtpd_proxy_timeout: float
    smtpd_recipient_limit: int
    smtpd_recipient_overshoot_limit: int
    smtpd_reject_filter_maps: tuple[str, ...]
    smtpd_reject_footer: str
    smtpd_reject_footer_maps: tuple[str, ...]
    smtpd_soft_error_limit: int
    smtpd_timeout: float
    smtpd_upstream_proxy_protocol: str
    smtpd_upstream_proxy_timeout: float
    smtputf8_enable: bool
    soft_bounce: bool
    strict_rfc821_envelopes: bool
    strict_smtputf8: bool
    verp_delimiter_filter: str
