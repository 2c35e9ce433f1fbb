"""Address verification by probes."""

from __future__ import annotations

from libmail.config.declare import BOOL, INT, LIST, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("address_verify_cache_cleanup_interval", TIME("h"), "12h", "verify"),
    Parameter("address_verify_default_transport", STR(), "$default_transport", "trivial-rewrite"),
    Parameter("address_verify_local_transport", STR(1), "$local_transport", "trivial-rewrite"),
    Parameter("address_verify_map", STR(),
              "$default_cache_db_type:$data_directory/verify_cache", "verify"),
    Parameter("address_verify_negative_cache", BOOL, "yes", "verify"),
    Parameter("address_verify_negative_expire_time", TIME("d", 1), "3d", "verify"),
    Parameter("address_verify_negative_refresh_time", TIME("h", 1), "3h", "verify"),
    Parameter("address_verify_pending_request_limit", INT(1), "5000", "verify"),
    Parameter("address_verify_poll_count", INT(1), "${stress?{1}:{3}}", "smtpd"),
    Parameter("address_verify_poll_delay", TIME("s", 1), "3s", "smtpd"),
    Parameter("address_verify_positive_expire_time", TIME("d", 1), "31d", "verify"),
    Parameter("address_verify_positive_refresh_time", TIME("d", 1), "7d", "verify"),
    Parameter("address_verify_relay_transport", STR(1), "$relay_transport", "trivial-rewrite"),
    Parameter("address_verify_relayhost", STR(), "$relayhost", "trivial-rewrite"),
    Parameter("address_verify_sender", STR(), "$double_bounce_sender", "smtpd verify"),
    Parameter("address_verify_sender_dependent_default_transport_maps", LIST,
              "$sender_dependent_default_transport_maps", "trivial-rewrite"),
    Parameter("address_verify_sender_dependent_relayhost_maps", LIST,
              "$sender_dependent_relayhost_maps", "trivial-rewrite"),
    Parameter("address_verify_sender_ttl", TIME("s"), "0s", "smtpd verify"),
    Parameter("address_verify_transport_maps", LIST, "$transport_maps", "trivial-rewrite"),
    Parameter("address_verify_virtual_transport", STR(1), "$virtual_transport", "trivial-rewrite"),
)  # fmt: skip
