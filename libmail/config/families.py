"""Parameters whose names begin with the name of a master.cf service.

`smtp_destination_concurrency_limit` is nobody's parameter until master.cf has a service `smtp`;
then it is, with the default that this table gives to the whole family.
"""

from __future__ import annotations

from libmail.config.declare import INT, STR, TIME, Kind

__all__ = ["FAMILIES", "Family", "family_of"]


class Family:
    """suffix: follows the service's name. default: main.cf text. programs: as Parameter."""

    __slots__ = ("default", "kind", "programs", "suffix")

    def __init__(self, suffix: str, kind: Kind, default: str, programs: str) -> None:
        self.suffix = suffix
        self.kind = kind
        self.default = default
        self.programs = programs


_ALL = (
    Family("_delivery_slot_cost", INT(), "$default_delivery_slot_cost", "qmgr"),
    Family("_delivery_slot_discount", INT(0, 100), "$default_delivery_slot_discount", "qmgr"),
    Family("_delivery_slot_loan", INT(), "$default_delivery_slot_loan", "qmgr"),
    Family("_minimum_delivery_slots", INT(), "$default_minimum_delivery_slots", "qmgr"),
    Family("_recipient_limit", INT(), "$default_recipient_limit", "qmgr"),
    Family("_extra_recipient_limit", INT(), "$default_extra_recipient_limit", "qmgr"),
    Family("_recipient_refill_limit", INT(1), "$default_recipient_refill_limit", "qmgr"),
    Family("_recipient_refill_delay", TIME("s", 1), "$default_recipient_refill_delay", "qmgr"),
    Family("_destination_concurrency_limit", INT(),
           "$default_destination_concurrency_limit", "qmgr"),
    Family("_destination_recipient_limit", INT(), "$default_destination_recipient_limit", "qmgr"),
    Family("_initial_destination_concurrency", INT(1), "$initial_destination_concurrency", "qmgr"),
    Family("_destination_concurrency_positive_feedback", STR(1),
           "$default_destination_concurrency_positive_feedback", "qmgr"),
    Family("_destination_concurrency_negative_feedback", STR(1),
           "$default_destination_concurrency_negative_feedback", "qmgr"),
    Family("_destination_concurrency_failed_cohort_limit", INT(),
           "$default_destination_concurrency_failed_cohort_limit", "qmgr"),
    Family("_destination_rate_delay", TIME("s"), "$default_destination_rate_delay", "qmgr"),
    Family("_transport_rate_delay", TIME("s"), "$default_transport_rate_delay", "qmgr"),
    Family("_time_limit", TIME("s", 1), "$command_time_limit", "pipe spawn"),
    Family("_sessions_per_process", INT(1, 100000), "$sessions_per_process", "master"),
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    family.suffix: family for family in sorted(_ALL, key=lambda one: -len(one.suffix))
}


def family_of(name: str) -> Family | None:
    """The family with the longest suffix that ends name (and is not all of it)."""
    for suffix, family in FAMILIES.items():
        if name.endswith(suffix) and len(name) > len(suffix):
            return family
    return None
