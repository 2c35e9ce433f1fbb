"""The parameters about TLS of both ends, and of servers, as records for `Config.load`.

tlsproxy loads ServerTlsParams with the prefix ("smtpd_", "tlsproxy_").
"""

from __future__ import annotations

from dataclasses import dataclass

from libmail.tls.settings import CipherLists

__all__ = ["ServerTlsParams", "TlsParams"]


@dataclass(frozen=True, slots=True)
class TlsParams:
    """What both ends are told."""

    tls_append_default_CA: bool  # noqa: N815 (so it is called)
    tls_config_file: str
    tls_config_name: str
    tls_dane_digests: tuple[str, ...]
    tls_disable_workarounds: str
    tls_eecdh_auto_curves: str
    tls_eecdh_strong_curve: str
    tls_eecdh_ultra_curve: str
    tls_export_cipherlist: str
    tls_ffdhe_auto_groups: str
    tls_high_cipherlist: str
    tls_low_cipherlist: str
    tls_medium_cipherlist: str
    tls_null_cipherlist: str
    tls_preempt_cipherlist: bool
    tls_server_sni_maps: tuple[str, ...]
    tls_session_ticket_cipher: str
    tls_ssl_options: str
    tls_trace_rate_limit: int
    tls_trust_server_ccerts: bool
    tls_wildcard_matches_multiple_labels: bool

    @property
    def cipher_lists(self) -> CipherLists:
        """What the grades of ciphers mean."""
        return CipherLists(
            self.tls_high_cipherlist,
            self.tls_medium_cipherlist,
            self.tls_low_cipherlist,
            self.tls_export_cipherlist,
            self.tls_null_cipherlist,
        )


@dataclass(frozen=True, slots=True)
class ServerTlsParams:
    """TLS of the SMTP server."""

    smtpd_enforce_tls: bool
    smtpd_tls_CAfile: str  # noqa: N815
    smtpd_tls_CApath: str  # noqa: N815
    smtpd_tls_always_issue_session_ids: bool
    smtpd_tls_ask_ccert: bool
    smtpd_tls_ccert_verifydepth: int
    smtpd_tls_cert_file: str
    smtpd_tls_chain_files: tuple[str, ...]
    smtpd_tls_ciphers: str
    smtpd_tls_dcert_file: str
    smtpd_tls_dh1024_param_file: str
    smtpd_tls_dkey_file: str
    smtpd_tls_eccert_file: str
    smtpd_tls_eckey_file: str
    smtpd_tls_eecdh_grade: str
    smtpd_tls_enable_rpk: bool
    smtpd_tls_exclude_ciphers: str
    smtpd_tls_key_file: str
    smtpd_tls_mandatory_ciphers: str
    smtpd_tls_mandatory_exclude_ciphers: str
    smtpd_tls_mandatory_protocols: str
    smtpd_tls_protocols: str
    smtpd_tls_req_ccert: bool
    smtpd_tls_security_level: str
    smtpd_tls_session_cache_database: str
    smtpd_tls_session_cache_timeout: float
    smtpd_tls_wrappermode: bool
    smtpd_use_tls: bool
