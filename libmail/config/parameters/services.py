"""Names of the services that programs talk to."""

from __future__ import annotations

from libmail.config.declare import STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("address_verify_service_name", STR(1), "verify", "*"),
    Parameter("bounce_service_name", STR(1), "bounce", "*"),
    Parameter("cleanup_service_name", STR(1), "cleanup",
              "smtpd pickup bounce local smtp verify qmqpd"),
    Parameter("connection_cache_service_name", STR(1), "scache", "smtp"),
    Parameter("defer_service_name", STR(1), "defer", "*"),
    Parameter("dnsblog_service_name", STR(1), "dnsblog", "postscreen"),
    Parameter("error_service_name", STR(1), "error", "qmgr"),
    Parameter("flush_service_name", STR(1), "flush", "smtpd bounce postqueue"),
    Parameter("pickup_service_name", STR(1), "pickup", "sendmail smtpd"),
    Parameter("proxymap_service_name", STR(1), "proxymap", "*"),
    Parameter("proxywrite_service_name", STR(1), "proxywrite", "*"),
    Parameter("queue_service_name", STR(1), "qmgr", "cleanup flush postqueue qmgr"),
    Parameter("rewrite_service_name", STR(1), "rewrite", "smtpd cleanup qmgr local"),
    Parameter("showq_service_name", STR(1), "showq", "postqueue"),
    Parameter("smtpd_service_name", STR(1), "smtpd", "postscreen"),
    Parameter("trace_service_name", STR(1), "trace", "*"),
    Parameter("tlsmgr_service_name", STR(1), "tlsmgr", "smtp smtpd tlsproxy"),
    Parameter("tlsproxy_service_name", STR(1), "tlsproxy", "postscreen"),
)  # fmt: skip
