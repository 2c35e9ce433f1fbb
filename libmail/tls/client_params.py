"""The parameters about TLS of clients, as a record for `Config.load`.

lmtp loads it with the prefix ("smtp_", "lmtp_").
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientTlsParams"]


@dataclass(frozen=True, slots=True)
class ClientTlsParams:
    """TLS of the SMTP client."""

    ignore_mx_lookup_error: bool
    smtp_dns_support_level: str
    smtp_enforce_tls: bool
    smtp_host_lookup: tuple[str, ...]
    smtp_tls_CAfile: str  # noqa: N815
    smtp_tls_CApath: str  # noqa: N815
    smtp_tls_cert_file: str
    smtp_tls_chain_files: tuple[str, ...]
    smtp_tls_ciphers: str
    smtp_tls_connection_reuse: bool
    smtp_tls_dcert_file: str
    smtp_tls_dkey_file: str
    smtp_tls_eccert_file: str
    smtp_tls_eckey_file: str
    smtp_tls_enable_rpk: bool
    smtp_tls_enforce_peername: bool
    smtp_tls_enforce_sts_mx_patterns: bool
    smtp_tls_exclude_ciphers: str
    smtp_tls_fingerprint_cert_match: tuple[str, ...]
    smtp_tls_fingerprint_digest: str
    smtp_tls_key_file: str
    smtp_tls_mandatory_ciphers: str
    smtp_tls_mandatory_exclude_ciphers: str
    smtp_tls_mandatory_protocols: str
    smtp_tls_per_site: tuple[str, ...]
    smtp_tls_policy_maps: tuple[str, ...]
    smtp_tls_protocols: str
    smtp_tls_scert_verifydepth: int
    smtp_tls_secure_cert_match: str
    smtp_tls_security_level: str
    smtp_tls_servername: str
    smtp_tls_session_cache_database: str
    smtp_tls_session_cache_timeout: float
    smtp_tls_trust_anchor_file: tuple[str, ...]
    smtp_tls_verify_cert_match: str
    smtp_use_tls: bool
