"""The words of the standard log lines."""

from __future__ import annotations

import pytest

from daemons.pickup.events import Pickup
from daemons.qmgr.events import QueueActive, QueueExpired
from libmail.ipc.messages import QueueId
from libmail.log import LOG, Event
from libmail.log.events import DeliveryStatus, seconds_text

ID = QueueId("ABC123")
ODD = '"odd \\" one"@a.test'
PLAIN = 'odd " one@a.test'


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            DeliveryStatus(
                ID, PLAIN, PLAIN, "none", 0, 1.0, (0.1, 0.2, 0.3, 0.4), "2.0.0", "sent", "ok"
            ),
            f"to=<{ODD}>, orig_to=<{ODD}>, relay=none, delay=1, delays=0.1/0.2/0.3/0.4,"
            " dsn=2.0.0, status=sent (ok)",
        ),
        (Pickup(ID, 0, PLAIN, ""), f"uid=0 from=<{ODD}>"),
        (QueueActive(ID, PLAIN, 5, 1), f"from=<{ODD}>, size=5, nrcpt=1 (queue active)"),
        (QueueActive(ID, "", 5, 1), "from=<>, size=5, nrcpt=1 (queue active)"),
        (
            QueueExpired(ID, PLAIN, "expired"),
            f"from=<{ODD}>, status=expired, returned to sender",
        ),
    ],
)
def test_addresses_are_in_external_form(event: Event, text: str) -> None:
    assert event.text() == f"{ID}: {text}"


def test_internal_form() -> None:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "x", internal_addresses=True)
    LOG.event(Pickup(ID, 0, PLAIN, ""))
    LOG.open(lambda severity, head, text: lines.append(text), "x")
    LOG.event(Pickup(ID, 0, PLAIN, ""))
    assert lines == [f"{ID}: uid=0 from=<{PLAIN}>", f"{ID}: uid=0 from=<{ODD}>"]


DELAYS = [
    (2, 0.004, "0"),
    (2, 0.006, "0.01"),
    (2, 0.0996, "0.1"),
    (2, 0.123, "0.12"),
    (2, 1.26, "1.3"),
    (2, 2.0, "2"),
    (2, 99.6, "100"),
    (0, 0.4, "0"),
    (0, 1.6, "2"),
    (0, 10.4, "10"),
    (1, 0.123, "0.1"),
    (1, 0.04, "0"),
    (4, 0.01234, "0.012"),
    (4, 0.00123, "0.0012"),
    (4, 0.000123, "0.0001"),
    (6, 0.0000123, "0.000012"),
    (6, 0.000123, "0.00012"),
    (6, 0.5, "0.5"),
    (6, 1.234, "1.2"),
    (6, 123.4, "123"),
    (6, 0.0000001, "0"),
]


@pytest.mark.parametrize(("digits", "seconds", "text"), DELAYS)
def test_resolution_of_delays(
    digits: int, seconds: float, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """delay_logging_resolution_limit."""
    monkeypatch.setattr(LOG, "delay_digits", digits)
    assert seconds_text(seconds) == text
