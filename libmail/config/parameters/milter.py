"""Milters: filters that see mail while it is received, and change it."""

from __future__ import annotations

from libmail.config.declare import LIST, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("milter_command_timeout", TIME("s", 1), "30s", "smtpd cleanup"),
    Parameter("milter_connect_macros", STR(), "j {daemon_name} {daemon_addr} v _", "smtpd cleanup"),
    Parameter("milter_connect_timeout", TIME("s", 1), "30s", "smtpd cleanup"),
    Parameter("milter_content_timeout", TIME("s", 1), "300s", "smtpd cleanup"),
    Parameter("milter_data_macros", STR(), "i", "smtpd cleanup"),
    Parameter("milter_default_action", STR(1), "shutdown", "smtpd cleanup"),
    Parameter("milter_end_of_data_macros", STR(), "i", "smtpd cleanup"),
    Parameter("milter_end_of_header_macros", STR(), "i", "smtpd cleanup"),
    Parameter("milter_header_checks", LIST, "", "cleanup"),
    Parameter("milter_helo_macros", STR(),
              "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}", "smtpd cleanup"),
    Parameter("milter_macro_daemon_name", STR(), "$myhostname", "smtpd cleanup"),
    Parameter("milter_macro_defaults", LIST, "", "smtpd cleanup"),
    Parameter("milter_macro_v", STR(), "$mail_name $mail_version", "smtpd cleanup"),
    Parameter("milter_mail_macros", STR(),
              "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
              "smtpd cleanup"),
    Parameter("milter_protocol", STR(1), "6", "smtpd cleanup"),
    Parameter("milter_rcpt_macros", STR(),
              "i {rcpt_addr} {rcpt_host} {rcpt_mailer}", "smtpd cleanup"),
    Parameter("milter_unknown_command_macros", STR(), "", "smtpd cleanup"),
    Parameter("non_smtpd_milters", LIST, "", "cleanup"),
    Parameter("smtpd_milter_maps", LIST, "", "smtpd"),
    Parameter("smtpd_milters", LIST, "", "smtpd"),
)  # fmt: skip
