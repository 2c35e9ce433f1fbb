"""Reports to senders and postmasters."""

from __future__ import annotations

from libmail.config.declare import BOOL, LIST, SIZE, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("bounce_notice_recipient", STR(1), "postmaster", "bounce smtpd"),
    Parameter("bounce_size_limit", SIZE(1), "50000", "bounce"),
    Parameter("bounce_template_file", STR(), "", "bounce"),
    Parameter("delay_notice_recipient", STR(1), "postmaster", "bounce"),
    Parameter("delay_warning_time", TIME("h"), "0h", "cleanup bounce"),
    Parameter("disable_mime_output_conversion", BOOL, "no", "smtp lmtp"),
    Parameter("disable_verp_bounces", BOOL, "no", "bounce"),
    Parameter("double_bounce_sender", STR(1), "double-bounce", "smtpd smtp bounce qmgr"),
    Parameter("enable_threaded_bounces", BOOL, "no", "bounce"),
    Parameter("error_notice_recipient", STR(1), "postmaster", "smtpd smtp"),
    Parameter("notify_classes", LIST, "resource, software", "smtpd smtp bounce"),
)  # fmt: skip
