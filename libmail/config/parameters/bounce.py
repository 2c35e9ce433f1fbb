"""Reports to senders and postmasters."""

from __future__ import annotations

from libmail.config.declare import BOOL, LIST, SIZE, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("bounce_notice_recipient", STR(1), "postmaster", "bounce",
              "Who gets copies of bounces."),
    Parameter("bounce_size_limit", SIZE(1), "50000", "bounce",
              "Octets of a message that are returned with a report."),
    Parameter("bounce_template_file", STR(), "", "bounce",
              "File with the texts of reports."),
    Parameter("delay_notice_recipient", STR(1), "postmaster", "bounce",
              "Who gets copies of delay warnings."),
    Parameter("delay_warning_time", TIME("h"), "0h", "qmgr bounce",
              "Time after which a sender is told of a delay; 0 is never."),
    Parameter("disable_mime_output_conversion", BOOL, "no", "smtp lmtp bounce",
              "Never convert 8-bit mail for next hops that cannot take it."),
    Parameter("disable_verp_bounces", BOOL, "no", "bounce",
              "One bounce a message also where the sender has VERP form."),
    Parameter("double_bounce_sender", STR(1), "double-bounce", "*",
              "Local part of the sender of postmaster notices; mail to it is dropped."),
    Parameter("enable_threaded_bounces", BOOL, "no", "bounce",
              "Refer to the message with References and In-Reply-To."),
    Parameter("error_notice_recipient", STR(1), "postmaster", "*",
              "Who gets notices about errors."),
    Parameter("notify_classes", LIST, "resource, software", "smtpd smtp bounce cleanup",
              "Kinds of errors that the postmaster is told about."),
)  # fmt: skip
