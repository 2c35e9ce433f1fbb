"""What master needs for starting services."""

from __future__ import annotations

from libmail.config.declare import ENUM, LIST, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("master_service_disable", LIST, "", "master"),
    Parameter("service_throttle_time", TIME("s", 1), "60s", "master"),
    Parameter("maillog_format", ENUM("text json"), "text", "*"),
    Parameter("application_event_drain_time", TIME("s", 1), "100s", "postkick"),
    Parameter("in_flow_delay", TIME("s"), "1s", "cleanup"),
)  # fmt: skip
