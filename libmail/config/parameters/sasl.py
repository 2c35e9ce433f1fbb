"""Authentication: of clients to our server, and of ours to other servers."""

from __future__ import annotations

from libmail.config.declare import BOOL, INT, LIST, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("broken_sasl_auth_clients", BOOL, "no", "smtpd"),
    Parameter("cyrus_sasl_config_path", STR(), "", "smtpd"),
    Parameter("oauth2_directory", STR(1), "$config_directory/oauth2", "oauth2 master postfix"),
    Parameter("send_cyrus_sasl_authzid", BOOL, "no", "smtp lmtp"),
    Parameter("smtp_sasl_auth_cache_name", STR(), "", "smtp"),
    Parameter("smtp_sasl_auth_cache_time", TIME("d"), "90d", "smtp"),
    Parameter("smtp_sasl_auth_enable", BOOL, "no", "smtp"),
    Parameter("smtp_sasl_auth_soft_bounce", BOOL, "yes", "smtp"),
    Parameter("smtp_sasl_mechanism_filter", LIST, "", "smtp"),
    Parameter("smtp_sasl_password_maps", LIST, "", "smtp"),
    Parameter("smtp_sasl_password_result_delimiter", STR(1), ":", "smtp"),
    Parameter("smtp_sasl_path", STR(), "", "smtp"),
    Parameter("smtp_sasl_security_options", LIST, "noplaintext, noanonymous", "smtp"),
    Parameter("smtp_sasl_tls_security_options", LIST, "$smtp_sasl_security_options", "smtp"),
    Parameter("smtp_sasl_tls_verified_security_options", LIST,
              "$smtp_sasl_tls_security_options", "smtp"),
    Parameter("smtp_sasl_type", STR(1), "cyrus", "smtp"),
    Parameter("smtp_sender_dependent_authentication", BOOL, "no", "smtp"),
    Parameter("smtpd_sasl_auth_enable", BOOL, "no", "smtpd"),
    Parameter("smtpd_sasl_authenticated_header", BOOL, "no", "smtpd"),
    Parameter("smtpd_sasl_exceptions_networks", LIST, "", "smtpd"),
    Parameter("smtpd_sasl_failure_limit", INT(), "30", "smtpd"),
    Parameter("smtpd_sasl_failure_time", TIME("s", 1), "600s", "anvil"),
    Parameter("smtpd_sasl_local_domain", STR(), "", "smtpd"),
    Parameter("smtpd_sasl_mechanism_filter", LIST, "!external, static:rest", "smtpd"),
    Parameter("smtpd_sasl_path", STR(1), "smtpd", "smtpd"),
    Parameter("smtpd_sasl_response_limit", INT(12288), "12288", "smtpd"),
    Parameter("smtpd_sasl_security_options", LIST, "noanonymous", "smtpd"),
    Parameter("smtpd_sasl_service", STR(1), "smtp", "smtpd"),
    Parameter("smtpd_sasl_tls_security_options", LIST, "$smtpd_sasl_security_options", "smtpd"),
    Parameter("smtpd_sasl_type", STR(1), "cyrus", "smtpd"),
)  # fmt: skip
