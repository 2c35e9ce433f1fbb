"""The parameters that restrictions read."""

from dataclasses import dataclass

__all__ = ["RestrictionParams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestrictionParams:
    """See postconf(5)."""

    access_map_defer_code: int
    access_map_reject_code: int
    address_verify_poll_count: int
    address_verify_poll_delay: float
    address_verify_sender: str
    address_verify_sender_ttl: float
    allow_untrusted_routing: bool
    canonical_maps: tuple[str, ...]
    compatibility_level: str
    default_rbl_reply: str
    defer_code: int
    double_bounce_sender: str
    invalid_hostname_reject_code: int
    local_recipient_maps: tuple[str, ...]
    mail_name: str
    mail_version: str
    maps_rbl_reject_code: int
    multi_recipient_bounce_reject_code: int
    mydestination: tuple[str, ...]
    mydomain: str
    myhostname: str
    mynetworks: tuple[str, ...]
    myorigin: str
    non_fqdn_reject_code: int
    parent_domain_matches_subdomains: tuple[str, ...]
    smtpd_expansion_filter: str
    permit_mx_backup_networks: tuple[str, ...]
    plaintext_reject_code: int
    rbl_reply_maps: tuple[str, ...]
    receive_override_options: tuple[str, ...]
    recipient_canonical_maps: tuple[str, ...]
    recipient_delimiter: str
    reject_code: int
    relay_domains_reject_code: int
    relay_recipient_maps: tuple[str, ...]
    sender_canonical_maps: tuple[str, ...]
    show_user_unknown_table_name: bool
    smtpd_client_restrictions: tuple[str, ...]
    smtpd_data_restrictions: tuple[str, ...]
    smtpd_delay_reject: bool
    smtpd_dns_reply_filter: tuple[str, ...]
    smtpd_end_of_data_restrictions: tuple[str, ...]
    smtpd_etrn_restrictions: tuple[str, ...]
    smtpd_helo_restrictions: tuple[str, ...]
    smtpd_log_access_permit_actions: tuple[str, ...]
    smtpd_null_access_lookup_key: str
    smtpd_policy_service_default_action: str
    smtpd_policy_service_max_idle: float
    smtpd_policy_service_max_ttl: float
    smtpd_policy_service_policy_context: str
    smtpd_policy_service_request_limit: int
    smtpd_policy_service_retry_delay: float
    smtpd_policy_service_timeout: float
    smtpd_policy_service_try_limit: int
    smtpd_proxy_filter: str
    smtpd_recipient_restrictions: tuple[str, ...]
    smtpd_reject_unlisted_recipient: bool
    smtpd_reject_unlisted_sender: bool
    smtpd_relay_before_recipient_restrictions: bool
    smtpd_relay_restrictions: tuple[str, ...]
    smtpd_restriction_classes: tuple[str, ...]
    smtpd_sasl_auth_enable: bool
    smtpd_sender_restrictions: tuple[str, ...]
    smtpd_tls_ask_ccert: bool
    smtpd_tls_auth_only: bool
    soft_bounce: bool
    stress: str
    unknown_address_reject_code: int
    unknown_address_tempfail_action: str
    unknown_client_reject_code: int
    unknown_helo_hostname_tempfail_action: str
    unknown_hostname_reject_code: int
    unknown_local_recipient_reject_code: int
    unknown_relay_recipient_reject_code: int
    unknown_virtual_mailbox_reject_code: int
    unknown_virtual_alias_reject_code: int
    unverified_recipient_defer_code: int
    unverified_recipient_reject_code: int
    unverified_recipient_reject_reason: str
    unverified_recipient_tempfail_action: str
    unverified_sender_defer_code: int
    unverified_sender_reject_code: int
    unverified_sender_reject_reason: str
    unverified_sender_tempfail_action: str
    virtual_alias_maps: tuple[str, ...]
    virtual_mailbox_maps: tuple[str, ...]
