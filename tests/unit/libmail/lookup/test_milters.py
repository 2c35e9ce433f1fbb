"""What becomes of mail that a Milter should see."""

from __future__ import annotations

import pytest

from libmail.lookup.milters import HOLD, PASS, unfiltered


@pytest.mark.parametrize(
    ("milters", "action", "code"),
    [
        ((), "tempfail", 0),
        (("inet:127.0.0.1:1",), "accept", 0),
        (("inet:127.0.0.1:1",), "tempfail", 451),
        (("inet:127.0.0.1:1",), "TempFail", 451),
        (("inet:127.0.0.1:1",), "reject", 550),
        (("inet:127.0.0.1:1",), "shutdown", 421),
        (("inet:127.0.0.1:1",), "nonsense", 451),
        (("{ unix:x, default_action = accept }",), "tempfail", 0),
        (("{ unix:x, connect_timeout=5s, default_action=reject }",), "accept", 550),
        (("{unix:x,default_action=accept}", "unix:y"), "tempfail", 451),
    ],
)
def test_default_action(milters: tuple[str, ...], action: str, code: int) -> None:
    decision = unfiltered(milters, action)
    assert (decision.reply.code if decision.reply else 0) == code
    assert not decision.hold
    assert (decision is PASS) == (code == 0)


def test_quarantine() -> None:
    assert unfiltered(("inet:127.0.0.1:1",), "quarantine") is HOLD
