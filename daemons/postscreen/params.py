"""The parameters that postscreen(8) reads."""

from dataclasses import dataclass

__all__ = ["PostscreenParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostscreenParams:
    """See postconf(5). Times in seconds."""

    dnsblog_service_name: str
    inet_protocols: tuple[str, ...]
    line_length_limit: int
    message_size_limit: int
    mynetworks: tuple[str, ...]
    myhostname: str
    parent_domain_matches_subdomains: tuple[str, ...]
    postscreen_access_list: tuple[str, ...]
    postscreen_allowlist_interfaces: tuple[str, ...]
    postscreen_bare_newline_action: str
    postscreen_bare_newline_enable: bool
    postscreen_bare_newline_ttl: float
    postscreen_cache_cleanup_interval: float
    postscreen_cache_map: str
    postscreen_cache_retention_time: float
    postscreen_client_connection_count_limit: int
    postscreen_command_count_limit: int
    postscreen_command_filter: tuple[str, ...]
    postscreen_command_time_limit: float
    postscreen_deep_handover: bool
    postscreen_denylist_action: str
    postscreen_disable_vrfy_command: bool
    postscreen_discard_ehlo_keyword_address_maps: tuple[str, ...]
    postscreen_discard_ehlo_keywords: tuple[str, ...]
    postscreen_dnsbl_action: str
    postscreen_dnsbl_allowlist_threshold: int
    postscreen_dnsbl_max_ttl: float
    postscreen_dnsbl_min_ttl: float
    postscreen_dnsbl_reply_map: tuple[str, ...]
    postscreen_dnsbl_sites: tuple[str, ...]
    postscreen_dnsbl_threshold: int
    postscreen_dnsbl_timeout: float
    postscreen_forbidden_commands: tuple[str, ...]
    postscreen_greet_action: str
    postscreen_greet_banner: str
    postscreen_greet_ttl: float
    postscreen_greet_wait: float
    postscreen_helo_required: bool
    postscreen_non_smtp_command_action: str
    postscreen_non_smtp_command_enable: bool
    postscreen_non_smtp_command_ttl: float
    postscreen_pipelining_action: str
    postscreen_pipelining_enable: bool
    postscreen_pipelining_ttl: float
    postscreen_post_queue_limit: int
    postscreen_pre_queue_limit: int
    postscreen_expansion_filter: str
    postscreen_reject_footer: str
    postscreen_reject_footer_maps: tuple[str, ...]
    postscreen_starttls_timeout: float
    postscreen_upstream_proxy_protocol: str
    postscreen_upstream_proxy_timeout: float
    respectful_logging: bool
    smtpd_banner: str
    smtpd_service_name: str
    requiretls_enable: bool
    smtpd_expansion_filter: str
    smtputf8_enable: bool
    soft_bounce: bool
    tlsproxy_service_name: str
