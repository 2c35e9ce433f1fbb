"""Parameters whose names begin with the name of a master.cf service.

`smtp_destination_concurrency_limit` is nobody's parameter until master.cf has a service `smtp`;
then it is, with the default that this table gives to the whole family.
"""

from __future__ import annotations

from libmail.config.declare import INT, STR, TIME, Kind

__all__ = ["FAMILIES", "Family", "family_of"]


class Family:
    """suffix: follows the service's name. default: main.cf text. programs, doc: as Parameter."""

    __slots__ = ("default", "doc", "kind", "programs", "suffix")

    def __init__(self, suffix: str, kind: Kind, default: str, programs: str, doc: str) -> None:
        self.suffix = suffix
        self.kind = kind
        self.default = default
        self.programs = programs
        self.doc = doc


_ALL = (
    Family("_delivery_slot_cost", INT(), "$default_delivery_slot_cost", "qmgr",
           "Deliveries that a message makes before another may go ahead of it once."),
    Family("_delivery_slot_discount", INT(0, 100), "$default_delivery_slot_discount", "qmgr",
           "Per cent of the slots that need not be there yet for going ahead."),
    Family("_delivery_slot_loan", INT(), "$default_delivery_slot_loan", "qmgr",
           "Slots that may be missing for going ahead."),
    Family("_minimum_delivery_slots", INT(), "$default_minimum_delivery_slots", "qmgr",
           "Messages of fewer slots than this never let another go ahead."),
    Family("_recipient_limit", INT(), "$default_recipient_limit", "qmgr",
           "Recipients of this transport held in memory at a time."),
    Family("_extra_recipient_limit", INT(), "$default_extra_recipient_limit", "qmgr",
           "Further recipients held in memory for messages that go ahead of others."),
    Family("_recipient_refill_limit", INT(1), "$default_recipient_refill_limit", "qmgr",
           "Recipients of a message that are read in one go."),
    Family("_recipient_refill_delay", TIME("s", 1), "$default_recipient_refill_delay", "qmgr",
           "Time after which recipients are read although the refill limit is not reached."),
    Family("_destination_concurrency_limit", INT(), "$default_destination_concurrency_limit",
           "qmgr", "Deliveries to one destination at a time; 0 is no limit."),
    Family("_destination_recipient_limit", INT(), "$default_destination_recipient_limit", "qmgr",
           "Recipients of one delivery; with 1, destinations are addresses instead of domains."),
    Family("_initial_destination_concurrency", INT(1), "$initial_destination_concurrency", "qmgr",
           "Deliveries at a time with which a destination begins."),
    Family("_destination_concurrency_positive_feedback", STR(1),
           "$default_destination_concurrency_positive_feedback", "qmgr",
           "What a successful delivery adds to the concurrency of its destination."),
    Family("_destination_concurrency_negative_feedback", STR(1),
           "$default_destination_concurrency_negative_feedback", "qmgr",
           "What a failed connection takes from the concurrency of its destination."),
    Family("_destination_concurrency_failed_cohort_limit", INT(),
           "$default_destination_concurrency_failed_cohort_limit", "qmgr",
           "Rounds of failed connections after which a destination is dead; 0 is never."),
    Family("_destination_rate_delay", TIME("s"), "$default_destination_rate_delay", "qmgr",
           "Pause between deliveries to one destination."),
    Family("_transport_rate_delay", TIME("s"), "$default_transport_rate_delay", "qmgr",
           "Pause between deliveries over this transport."),
    Family("_time_limit", TIME("s", 1), "$command_time_limit", "pipe spawn",
           "Time that the command of a pipe or spawn service may take."),
    Family("_sessions_per_process", INT(1, 100000), "$sessions_per_process", "master",
           "Clients that one process of this service serves at a time."),
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
