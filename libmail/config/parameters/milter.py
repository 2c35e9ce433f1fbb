"""Milters: filters that see mail while it is received."""

from __future__ import annotations

from libmail.config.declare import LIST, STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("milter_default_action", STR(1), "shutdown", "smtpd pickup",
              "What happens to mail while a Milter cannot be asked: accept, reject, tempfail, "
              "quarantine, shutdown."),
    Parameter("non_smtpd_milters", LIST, "", "pickup",
              "Milters for mail that does not arrive by SMTP."),
    Parameter("smtpd_milter_maps", LIST, "", "smtpd",
              "Tables with the Milters by client address, instead of smtpd_milters; or DISABLE."),
    Parameter("smtpd_milters", LIST, "", "smtpd",
              "Milters for mail that arrives by SMTP."),
)  # fmt: skip
