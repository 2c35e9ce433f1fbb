"""What the TLS library is told, whoever uses it; random numbers."""

from __future__ import annotations

from libmail.config.declare import BOOL, INT, LIST, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

_USERS = "smtp smtpd tlsproxy"

PARAMETERS = by_name(
    Parameter("tls_append_default_CA", BOOL, "no", _USERS),
    Parameter("tls_auto_reload", BOOL, "yes", "master tablewatch"),
    Parameter("tls_config_file", STR(), "default", _USERS),
    Parameter("tls_config_name", STR(), "", _USERS),
    Parameter("tls_daemon_random_bytes", INT(1), "32", _USERS),
    Parameter("tls_dane_digests", LIST, "sha512 sha256", _USERS),
    Parameter("tls_disable_workarounds", LIST, "", _USERS),
    Parameter("tls_eecdh_auto_curves", STR(), "X25519 X448 prime256v1 secp384r1 secp521r1", _USERS),
    Parameter("tls_eecdh_strong_curve", STR(1), "prime256v1", _USERS),
    Parameter("tls_eecdh_ultra_curve", STR(1), "secp384r1", _USERS),
    Parameter("tls_export_cipherlist", STR(), "", _USERS),
    Parameter("tls_fast_shutdown_enable", BOOL, "yes", _USERS),
    Parameter("tls_ffdhe_auto_groups", STR(), "ffdhe2048 ffdhe3072", _USERS),
    Parameter("tls_high_cipherlist", STR(1),
              "aNULL:-aNULL:HIGH:!SEED:!IDEA:!3DES:!RC2:!RC4:!RC5:!kDH:!kECDH:!aDSS:!MD5:@STRENGTH",
              _USERS),
    Parameter("tls_low_cipherlist", STR(), "", _USERS),
    Parameter("tls_medium_cipherlist", STR(1),
              "aNULL:-aNULL:HIGH:MEDIUM:!SEED:!IDEA:!3DES:!RC2:!RC4:!RC5:!kDH:!kECDH:!aDSS:!MD5:"
              "+RC4:@STRENGTH", _USERS),
    Parameter("tls_null_cipherlist", STR(1), "eNULL:!kDH:!kECDH:!aDSS:!MD5:!aNULL", _USERS),
    Parameter("tls_preempt_cipherlist", BOOL, "no", _USERS),
    Parameter("tls_random_bytes", INT(1), "32", "tlsmgr"),
    Parameter("tls_random_exchange_name", STR(1), "${data_directory}/prng_exch", "tlsmgr"),
    Parameter("tls_random_prng_update_period", TIME("s", 1), "3600s", "tlsmgr"),
    Parameter("tls_random_reseed_period", TIME("s", 1), "3600s", "tlsmgr"),
    Parameter("tls_random_source", STR(), "dev:/dev/urandom", "tlsmgr"),
    Parameter("tls_server_sni_maps", LIST, "", f"{_USERS} tablewatch"),
    Parameter("tls_session_ticket_cipher", STR(), "aes-256-cbc", _USERS),
    Parameter("tls_ssl_options", LIST, "", _USERS),
    Parameter("tls_trace_rate_limit", INT(), "1", f"{_USERS} tlsmgr"),
    Parameter("tls_trust_server_ccerts", BOOL, "no", _USERS),
    Parameter("tls_wildcard_matches_multiple_labels", BOOL, "yes", _USERS),
)  # fmt: skip
