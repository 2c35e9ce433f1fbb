"""What master needs for starting services."""

from __future__ import annotations

from libmail.config.declare import ENUM, LIST, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("master_service_disable", LIST, "", "master",
              "Services of master.cf that are not started: type, name/type."),
    Parameter("service_throttle_time", TIME("s", 1), "60s", "master",
              "Pause before a service whose process failed is started again."),
    Parameter("maillog_format", ENUM("text json"), "text", "*",
              "Form of log lines: the classic text, or JSON objects with the same fields."),
    Parameter("application_event_drain_time", TIME("s", 1), "100s", "master",
              "Time that sessions may take after a service has been told to end."),
    Parameter("in_flow_delay", TIME("s"), "1s", "cleanup",
              "Pause before a new message while more arrives than leaves."),
)  # fmt: skip
