"""Parameters of cleanup(8)."""

from dataclasses import dataclass

__all__ = ["CleanupParams", "HeaderParams", "MappingParams"]


@dataclass(frozen=True, slots=True)
class MappingParams:
    """How addresses are mapped."""

    myorigin: str
    mydestination: tuple[str, ...]
    inet_interfaces: tuple[str, ...]
    inet_protocols: tuple[str, ...]
    proxy_interfaces: tuple[str, ...]
    recipient_delimiter: str
    propagate_unmatched_extensions: tuple[str, ...]
    canonical_maps: tuple[str, ...]
    canonical_classes: tuple[str, ...]
    sender_canonical_maps: tuple[str, ...]
    sender_canonical_classes: tuple[str, ...]
    recipient_canonical_maps: tuple[str, ...]
    recipient_canonical_classes: tuple[str, ...]
    masquerade_domains: tuple[str, ...]
    masquerade_classes: tuple[str, ...]
    masquerade_exceptions: tuple[str, ...]
    virtual_alias_maps: tuple[str, ...]
    virtual_alias_expansion_limit: int
    virtual_alias_recursion_limit: int
    virtual_alias_address_length_limit: int
    smtputf8_enable: bool


@dataclass(frozen=True, slots=True)
class HeaderParams:
    """What is done to the message header."""

    myhostname: str
    always_add_missing_headers: bool
    undisclosed_recipients_header: str
    header_from_format: str
    full_name_encoding_charset: str
    message_drop_headers: tuple[str, ...]
    header_size_limit: int
    header_address_token_limit: int
    hopcount_limit: int
    non_empty_end_of_header_action: str
    requiretls_enable: bool
    requiretls_esmtp_header: bool
    tls_required_enable: bool


@dataclass(frozen=True, slots=True)
class InspectionParams:
    """What is looked for in content, and how far."""

    header_checks: tuple[str, ...]
    mime_header_checks: tuple[str, ...]
    nested_header_checks: tuple[str, ...]
    body_checks: tuple[str, ...]
    milter_header_checks: tuple[str, ...]
    body_checks_size_limit: int
    header_size_limit: int
    line_length_limit: int
    disable_mime_input_processing: bool
    mime_boundary_length_limit: int
    mime_nesting_limit: int
    strict_7bit_headers: bool
    strict_8bitmime: bool
    strict_8bitmime_body: bool
    strict_mime_encoding_domain: bool
    smtputf8_enable: bool


@dataclass(frozen=True, slots=True)
class CleanupParams:
    """The rest: envelope, queue file, other services."""

    always_bcc: str
    sender_bcc_maps: tuple[str, ...]
    recipient_bcc_maps: tuple[str, ...]
    recipient_delimiter: str
    empty_address_recipient: str
    duplicate_filter_limit: int
    detect_8bit_encoding_header: bool
    enable_original_recipient: bool
    message_size_limit: int
    non_smtpd_milters: tuple[str, ...]
    delay_warning_time: float
    smtputf8_enable: bool
    enable_long_queue_ids: bool
    hash_queue_names: tuple[str, ...]
    hash_queue_depth: int
    queue_minfree: int
    in_flow_delay: float
    rewrite_service_name: str
    queue_service_name: str
    trace_service_name: str
    bounce_service_name: str
    ipc_idle: float
    ipc_ttl: float
    ipc_timeout: float
