"""Names of the services that programs talk to."""

from __future__ import annotations

from libmail.config.declare import STR, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("address_verify_service_name", STR(1), "verify", "smtpd cleanup qmgr",
              "The service that verifies addresses."),
    Parameter("bounce_service_name", STR(1), "bounce", "*",
              "The service that records undeliverable recipients."),
    Parameter("cleanup_service_name", STR(1), "cleanup", "smtpd pickup bounce local virtual qmqpd",
              "The service that puts messages into the queue."),
    Parameter("connection_cache_service_name", STR(1), "scache", "smtp",
              "The service that keeps idle connections."),
    Parameter("defer_service_name", STR(1), "defer", "*",
              "The service that records delayed recipients."),
    Parameter("error_service_name", STR(1), "error", "qmgr",
              "The transport for mail that must fail."),
    Parameter("flush_service_name", STR(1), "flush", "smtpd qmgr postqueue",
              "The service that knows the queued mail of a destination."),
    Parameter("pickup_service_name", STR(1), "pickup", "sendmail postdrop",
              "The service that takes local submissions."),
    Parameter("proxymap_service_name", STR(1), "proxymap", "*",
              "The service for shared table lookups."),
    Parameter("proxywrite_service_name", STR(1), "proxywrite", "*",
              "The service for shared table updates."),
    Parameter("queue_service_name", STR(1), "qmgr", "*",
              "The queue manager's service."),
    Parameter("rewrite_service_name", STR(1), "rewrite", "*",
              "The service that rewrites and resolves addresses."),
    Parameter("showq_service_name", STR(1), "showq", "postqueue",
              "The service that lists the queue."),
    Parameter("smtpd_service_name", STR(1), "smtpd", "postscreen",
              "The service that postscreen hands clients to."),
    Parameter("trace_service_name", STR(1), "trace", "*",
              "The service that records successful deliveries for reports."),
    Parameter("tlsmgr_service_name", STR(1), "tlsmgr", "smtp smtpd",
              "The service that keeps TLS sessions."),
    Parameter("tlsproxy_service_name", STR(1), "tlsproxy", "smtp postscreen",
              "The service that does TLS for others."),
)  # fmt: skip
