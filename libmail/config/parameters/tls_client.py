"""TLS of the SMTP client; that of the LMTP client is in libmail.config.parameters.lmtp."""

from __future__ import annotations

from libmail.config.declare import BOOL, ENUM, INT, LIST, SIZE, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

_STS = by_name(
    Parameter("mta_sts_authorities", STR(), "", "mta-sts"),
    Parameter("mta_sts_cache_map", STR(), "lmdb:$data_directory/mta_sts_cache", "mta-sts"),
    Parameter("mta_sts_fetch_limit", INT(1, 1000), "20", "mta-sts"),
    Parameter("mta_sts_fetch_timeout", TIME("s", 1), "20s", "mta-sts"),
    Parameter("mta_sts_private_networks", LIST, "", "mta-sts"),
)  # fmt: skip

_SMTP = by_name(
    Parameter("smtp_enforce_tls", BOOL, "no", "smtp"),
    Parameter("smtp_log_tls_feature_status", BOOL, "yes", "smtp"),
    Parameter("smtp_starttls_timeout", TIME("s", 1), "300s", "smtp"),
    Parameter("smtp_tls_block_early_mail_reply", BOOL, "no", "smtp"),
    Parameter("smtp_tls_CAfile", STR(), "", "smtp"),
    Parameter("smtp_tls_CApath", STR(), "", "smtp"),
    Parameter("smtp_tls_cert_file", STR(), "", "smtp"),
    Parameter("smtp_tls_chain_files", LIST, "", "smtp"),
    Parameter("smtp_tls_ciphers", STR(1), "medium", "smtp"),
    Parameter("smtp_tls_connection_reuse", BOOL, "no", "smtp"),
    Parameter("smtp_tls_dane_insecure_mx_policy", ENUM("may encrypt dane"), "dane", "smtp"),
    Parameter("smtp_tls_dcert_file", STR(), "", "smtp"),
    Parameter("smtp_tls_dkey_file", STR(), "$smtp_tls_dcert_file", "smtp"),
    Parameter("smtp_tls_eccert_file", STR(), "", "smtp"),
    Parameter("smtp_tls_eckey_file", STR(), "$smtp_tls_eccert_file", "smtp"),
    Parameter("smtp_tls_enable_rpk", BOOL, "no", "smtp"),
    Parameter("smtp_tls_enforce_peername", BOOL, "yes", "smtp"),
    Parameter("smtp_tls_enforce_sts_mx_patterns", BOOL, "yes", "smtp"),
    Parameter("smtp_tls_exclude_ciphers", STR(), "", "smtp"),
    Parameter("smtp_tls_fingerprint_cert_match", LIST, "", "smtp"),
    Parameter("smtp_tls_fingerprint_digest", STR(1),
              "${{$compatibility_level} <level {3.6} ? {md5} : {sha256}}", "smtp"),
    Parameter("smtp_tls_force_insecure_host_tlsa_lookup", BOOL, "no", "smtp"),
    Parameter("smtp_tls_key_file", STR(), "$smtp_tls_cert_file", "smtp"),
    Parameter("smtp_tls_loglevel", STR(1), "0", "smtp"),
    Parameter("smtp_tls_loglevel_maps", LIST, "", "smtp"),
    Parameter("smtp_tls_mandatory_ciphers", STR(1), "medium", "smtp"),
    Parameter("smtp_tls_mandatory_exclude_ciphers", STR(), "", "smtp"),
    Parameter("smtp_tls_mandatory_protocols", STR(), ">=TLSv1", "smtp"),
    Parameter("smtp_tls_note_starttls_offer", BOOL, "no", "smtp"),
    Parameter("smtp_tls_per_site", LIST, "", "smtp"),
    Parameter("smtp_tls_policy_maps", LIST, "", "smtp"),
    Parameter("smtp_tls_protocols", STR(), ">=TLSv1", "smtp"),
    Parameter("smtp_tls_scert_verifydepth", INT(), "9", "smtp"),
    Parameter("smtp_tls_secure_cert_match", STR(1), "nexthop, dot-nexthop", "smtp"),
    Parameter("smtp_tls_security_level", STR(),
              "${{$compatibility_level} <level {3.11} ? {} : {may}}", "smtp"),
    Parameter("smtp_tls_servername", STR(), "", "smtp"),
    Parameter("smtp_tls_session_cache_database", STR(), "", "smtp tlsmgr"),
    Parameter("smtp_tls_session_cache_timeout", TIME("s"), "3600s", "smtp tlsmgr"),
    Parameter("smtp_tls_trace_size_limit", SIZE(), "102400", "smtp"),
    Parameter("smtp_tls_trust_anchor_file", LIST, "", "smtp"),
    Parameter("smtp_tls_verify_cert_match", STR(1), "hostname", "smtp"),
    Parameter("smtp_tls_wrappermode", BOOL, "no", "smtp"),
    Parameter("smtp_tlsrpt_enable", BOOL, "no", "smtp"),
    Parameter("smtp_tlsrpt_skip_reused_handshakes", BOOL, "no", "smtp"),
    Parameter("smtp_tlsrpt_socket_name", STR(), "", "smtp"),
    Parameter("smtp_use_tls", BOOL, "no", "smtp"),
)  # fmt: skip


def _proxy(name: str, twin: str) -> Parameter:
    """One of tlsproxy, which has the value of its SMTP twin."""
    return Parameter(name, _SMTP[twin].kind, f"${twin}", "tlsproxy")


PARAMETERS = _STS | _SMTP | by_name(
    _proxy("tlsproxy_client_CAfile", "smtp_tls_CAfile"),
    _proxy("tlsproxy_client_CApath", "smtp_tls_CApath"),
    _proxy("tlsproxy_client_cert_file", "smtp_tls_cert_file"),
    _proxy("tlsproxy_client_chain_files", "smtp_tls_chain_files"),
    _proxy("tlsproxy_client_dcert_file", "smtp_tls_dcert_file"),
    _proxy("tlsproxy_client_dkey_file", "smtp_tls_dkey_file"),
    _proxy("tlsproxy_client_eccert_file", "smtp_tls_eccert_file"),
    _proxy("tlsproxy_client_eckey_file", "smtp_tls_eckey_file"),
    _proxy("tlsproxy_client_enforce_tls", "smtp_enforce_tls"),
    _proxy("tlsproxy_client_fingerprint_digest", "smtp_tls_fingerprint_digest"),
    _proxy("tlsproxy_client_key_file", "smtp_tls_key_file"),
    _proxy("tlsproxy_client_loglevel", "smtp_tls_loglevel"),
    _proxy("tlsproxy_client_per_site", "smtp_tls_per_site"),
    Parameter("tlsproxy_client_policy_maps", LIST,
              "${tlsproxy_client_policy?{$tlsproxy_client_policy}:{$smtp_tls_policy_maps}}",
              "tlsproxy"),
    _proxy("tlsproxy_client_scert_verifydepth", "smtp_tls_scert_verifydepth"),
    Parameter("tlsproxy_client_security_level", STR(),
              "${tlsproxy_client_level?{$tlsproxy_client_level}:{$smtp_tls_security_level}}",
              "tlsproxy"),
    _proxy("tlsproxy_client_use_tls", "smtp_use_tls"),
)  # fmt: skip
