"""The queue manager: order, concurrency, retries; the flush service."""

from __future__ import annotations

from libmail.config.declare import BOOL, INT, LIST, STR, TIME, Parameter, by_name

__all__ = ["PARAMETERS"]

PARAMETERS = by_name(
    Parameter("bounce_queue_lifetime", TIME("d"), "5d", "qmgr"),
    Parameter("confirm_delay_cleared", BOOL, "no", "qmgr"),
    Parameter("default_delivery_slot_cost", INT(), "5", "qmgr"),
    Parameter("default_delivery_slot_discount", INT(0, 100), "50", "qmgr"),
    Parameter("default_delivery_slot_loan", INT(), "3", "qmgr"),
    Parameter("default_destination_concurrency_failed_cohort_limit", INT(), "1", "qmgr"),
    Parameter("default_destination_concurrency_limit", INT(), "20", "qmgr"),
    Parameter("default_destination_concurrency_negative_feedback", STR(1), "1", "qmgr"),
    Parameter("default_destination_concurrency_positive_feedback", STR(1), "1", "qmgr"),
    Parameter("default_destination_rate_delay", TIME("s"), "0s", "qmgr"),
    Parameter("default_destination_recipient_limit", INT(), "50", "qmgr"),
    Parameter("default_extra_recipient_limit", INT(), "1000", "qmgr"),
    Parameter("default_minimum_delivery_slots", INT(), "3", "qmgr"),
    Parameter("default_recipient_limit", INT(), "20000", "qmgr"),
    Parameter("default_recipient_refill_delay", TIME("s", 1), "5s", "qmgr"),
    Parameter("default_recipient_refill_limit", INT(1), "100", "qmgr"),
    Parameter("default_transport_rate_delay", TIME("s"), "0s", "qmgr"),
    Parameter("defer_transports", LIST, "", "qmgr"),
    Parameter("destination_concurrency_feedback_debug", BOOL, "no", "qmgr"),
    Parameter("fast_flush_domains", LIST, "$relay_domains", "smtpd bounce flush"),
    Parameter("fast_flush_purge_time", TIME("d", 1), "7d", "flush"),
    Parameter("fast_flush_refresh_time", TIME("h", 1), "12h", "flush"),
    Parameter("local_destination_concurrency_limit", INT(), "2", "qmgr"),
    Parameter("local_destination_recipient_limit", INT(), "1", "qmgr"),
    Parameter("initial_destination_concurrency", INT(1), "5", "qmgr"),
    Parameter("maximal_backoff_time", TIME("s", 1), "4000s", "qmgr"),
    Parameter("maximal_queue_lifetime", TIME("d"), "5d", "qmgr bounce"),
    Parameter("minimal_backoff_time", TIME("s", 1), "300s", "qmgr smtp"),
    Parameter("qmgr_clog_warn_time", TIME("s"), "300s", "qmgr"),
    Parameter("qmgr_daemon_timeout", TIME("s", 1), "1000s", "qmgr"),
    Parameter("qmgr_fudge_factor", INT(1, 100), "100", "qmgr"),
    Parameter("qmgr_ipc_timeout", TIME("s", 1), "60s", "qmgr"),
    Parameter("qmgr_message_active_limit", INT(1), "20000", "qmgr"),
    Parameter("qmgr_message_recipient_limit", INT(1), "20000", "qmgr"),
    Parameter("qmgr_message_recipient_minimum", INT(1), "10", "qmgr"),
    Parameter("queue_file_reuse_limit", INT(0, 10000), "128", "qmgr"),
    Parameter("queue_run_delay", TIME("s", 1), "300s", "qmgr"),
    Parameter("transport_retry_time", TIME("s", 1), "60s", "qmgr"),
)  # fmt: skip
