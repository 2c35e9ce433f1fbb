"""The LMTP client's parameters: each has the meaning of its SMTP twin, and its own default."""

from __future__ import annotations

from libmail.config.declare import Parameter, by_name
from libmail.config.parameters import smtp

__all__ = ["PARAMETERS"]

_TWINS = smtp.PARAMETERS


def _like(name: str, twin: str, default: str) -> Parameter:
    doc = f"As {twin}, for LMTP. {_TWINS[twin].doc}"
    return Parameter(name, _TWINS[twin].kind, default, "lmtp", doc)


PARAMETERS = by_name(
    _like("lmtp_address_preference", "smtp_address_preference", "any"),
    _like("lmtp_address_verify_target", "smtp_address_verify_target", "rcpt"),
    _like("lmtp_balance_inet_protocols", "smtp_balance_inet_protocols", "yes"),
    _like("lmtp_bind_address", "smtp_bind_address", ""),
    _like("lmtp_bind_address6", "smtp_bind_address6", ""),
    _like("lmtp_bind_address_enforce", "smtp_bind_address_enforce", "no"),
    _like("lmtp_body_checks", "smtp_body_checks", ""),
    _like("lmtp_cname_overrides_servername", "smtp_cname_overrides_servername", "no"),
    _like("lmtp_connect_timeout", "smtp_connect_timeout", "0s"),
    _like("lmtp_connection_cache_destinations", "smtp_connection_cache_destinations", ""),
    _like("lmtp_connection_cache_on_demand", "smtp_connection_cache_on_demand", "yes"),
    _like("lmtp_connection_cache_time_limit", "smtp_connection_cache_time_limit", "2s"),
    _like("lmtp_connection_reuse_count_limit", "smtp_connection_reuse_count_limit", "0"),
    _like("lmtp_connection_reuse_time_limit", "smtp_connection_reuse_time_limit", "300s"),
    _like("lmtp_data_done_timeout", "smtp_data_done_timeout", "600s"),
    _like("lmtp_data_init_timeout", "smtp_data_init_timeout", "120s"),
    _like("lmtp_data_xfer_timeout", "smtp_data_xfer_timeout", "180s"),
    _like("lmtp_defer_if_no_mx_address_found", "smtp_defer_if_no_mx_address_found", "no"),
    _like("lmtp_delivery_status_filter", "smtp_delivery_status_filter",
          "$default_delivery_status_filter"),
    _like("lmtp_discard_lhlo_keyword_address_maps", "smtp_discard_ehlo_keyword_address_maps",
          ""),
    _like("lmtp_discard_lhlo_keywords", "smtp_discard_ehlo_keywords", ""),
    _like("lmtp_dns_reply_filter", "smtp_dns_reply_filter", ""),
    _like("lmtp_dns_resolver_options", "smtp_dns_resolver_options", ""),
    _like("lmtp_dns_support_level", "smtp_dns_support_level", ""),
    _like("lmtp_fallback_relay", "smtp_fallback_relay", ""),
    _like("lmtp_generic_maps", "smtp_generic_maps", ""),
    _like("lmtp_header_checks", "smtp_header_checks", ""),
    _like("lmtp_host_lookup", "smtp_host_lookup", "dns"),
    _like("lmtp_lhlo_name", "smtp_helo_name", "$myhostname"),
    _like("lmtp_lhlo_timeout", "smtp_helo_timeout", "300s"),
    _like("lmtp_line_length_limit", "smtp_line_length_limit", "998"),
    _like("lmtp_mail_timeout", "smtp_mail_timeout", "300s"),
    _like("lmtp_mime_header_checks", "smtp_mime_header_checks", ""),
    _like("lmtp_min_data_rate", "smtp_min_data_rate", "500"),
    _like("lmtp_mx_address_limit", "smtp_mx_address_limit", "5"),
    _like("lmtp_mx_session_limit", "smtp_mx_session_limit", "2"),
    _like("lmtp_nested_header_checks", "smtp_nested_header_checks", ""),
    _like("lmtp_per_request_deadline", "smtp_per_request_deadline",
          "${lmtp_per_record_deadline?{$lmtp_per_record_deadline}:{no}}"),
    _like("lmtp_pix_workaround_delay_time", "smtp_pix_workaround_delay_time", "10s"),
    _like("lmtp_pix_workaround_maps", "smtp_pix_workaround_maps", ""),
    _like("lmtp_pix_workaround_threshold_time", "smtp_pix_workaround_threshold_time", "500s"),
    _like("lmtp_pix_workarounds", "smtp_pix_workarounds", "disable_esmtp,delay_dotcrlf"),
    _like("lmtp_quit_timeout", "smtp_quit_timeout", "300s"),
    _like("lmtp_quote_rfc821_envelope", "smtp_quote_rfc821_envelope", "yes"),
    _like("lmtp_randomize_addresses", "smtp_randomize_addresses", "yes"),
    _like("lmtp_rcpt_timeout", "smtp_rcpt_timeout", "300s"),
    _like("lmtp_reply_filter", "smtp_reply_filter", ""),
    _like("lmtp_requiretls_policy", "smtp_requiretls_policy", "opportunistic"),
    _like("lmtp_rset_timeout", "smtp_rset_timeout", "20s"),
    _like("lmtp_send_dummy_mail_auth", "smtp_send_dummy_mail_auth", "no"),
    _like("lmtp_send_xforward_command", "smtp_send_xforward_command", "no"),
    _like("lmtp_skip_5xx_greeting", "smtp_skip_5xx_greeting", "yes"),
    _like("lmtp_skip_quit_response", "smtp_skip_quit_response", "no"),
    _like("lmtp_tcp_port", "smtp_tcp_port", "24"),
    _like("lmtp_xforward_timeout", "smtp_xforward_timeout", "300s"),
)  # fmt: skip
