"""When a destination is said to clog the active queue, and what is advised."""

from __future__ import annotations

import pytest

from daemons.qmgr.clog import ClogWarnings
from daemons.qmgr.feedback import Feedback, WindowRules
from daemons.qmgr.jobs import Destination, Transport
from daemons.qmgr.params import TransportLimits
from libmail.log import LOG

ACTIVE_LIMIT = 20


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(
        lambda severity, head, text: lines.append(text.removeprefix("warning: ")), "postfix/qmgr"
    )
    return lines


def destination(waiting: int, *, busy: int = 2, limit: int = 20, window: int = 2) -> Destination:
    feedback = Feedback(1.0)
    rules = WindowRules(
        initial=window, limit=limit, positive=feedback, negative=feedback, cohorts=1
    )
    found = Destination(Transport("slow", TransportLimits(window=rules)), "host")
    found.transport.destinations["host"] = found
    found.waiting, found.busy = waiting, busy
    return found


def test_a_fifth_of_the_limit_is_no_reason(logged: list[str]) -> None:
    warnings = ClogWarnings(ACTIVE_LIMIT, 300)
    warnings.check(destination(2), 4, 1000.0)
    assert not logged
    warnings.check(destination(3), 5, 1000.0)
    assert logged[0] == "mail for host is using up 5 of 5 active queue entries"


def test_once_in_a_while(logged: list[str]) -> None:
    warnings, slow = ClogWarnings(ACTIVE_LIMIT, 300), destination(3)
    for now in (1000.0, 1299.0, 1300.0):
        warnings.check(slow, 5, now)
    assert len([line for line in logged if line.startswith("mail for")]) == 2
    del logged[:]
    ClogWarnings(ACTIVE_LIMIT, 0).check(destination(3), 5, 1000.0)
    assert not logged


@pytest.mark.parametrize(
    ("found", "advice"),
    [
        (destination(3, limit=2),
         "you may need to increase the main.cf slow_destination_concurrency_limit from 2"),
        (destination(3, limit=0, window=19),
         "you may need to increase the main.cf qmgr_message_active_limit from 20"),
        (destination(3), "you may need to reduce slow connect and helo timeouts"),
    ],
)  # fmt: skip
def test_advice(found: Destination, advice: str, logged: list[str]) -> None:
    ClogWarnings(ACTIVE_LIMIT, 300).check(found, 10, 1000.0)
    assert logged[1:3] == ["this may slow down other mail deliveries", advice]
    assert logged[-1] == "to turn off these warnings specify: qmgr_clog_warn_time = 0"


def test_advice_where_others_share_the_transport(logged: list[str]) -> None:
    found = destination(8)
    found.transport.destinations["other"] = Destination(found.transport, "other")
    ClogWarnings(ACTIVE_LIMIT, 300).check(found, 10, 1000.0)
    assert logged[1] == "you may need a separate master.cf transport for host"
