"""What tests a client has to pass, what it is told, and what is remembered of it."""

from __future__ import annotations

import pytest

from daemons.postscreen.screen_tests import DEEP, Action, Record, Rules, ScreenTest, read_record
from daemons.postscreen.screening import Screening

NOW = 1_700_000_000
DAY = 86400
TTL = dict.fromkeys(ScreenTest, DAY)
DEFAULT = (ScreenTest.GREET, ScreenTest.DNSBL)


def rules(*enabled: ScreenTest, action: Action = Action.ENFORCE) -> Rules:
    return Rules(frozenset(enabled or DEFAULT), dict.fromkeys(ScreenTest, action), TTL)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("5;6;7;8;9", (5, 6, 7, 8, 9)),
        ("5;6", (5, 6, 0, 0, 0)),
        ("5;6;7;8;9;10", (5, 6, 7, 8, 9)),
        ("", (0,) * 5),
        ("x;6;7;8;9", (0,) * 5),
        ("-5;6;7;8;9", (0,) * 5),
        ("5;\u0665;7;8;9", (0,) * 5),
        (f"{'9' * 5000};0;0;0;0", (0,) * 5),
    ],
)
def test_entries(text: str, until: tuple[int, ...]) -> None:
    record = read_record(text)
    assert record.until == until
    assert read_record(record.text()) == record


def test_new_client_passes() -> None:
    screening = Screening(rules(), Record(), NOW)
    assert screening.record.new
    assert screening.early
    assert not screening.needs_engine
    assert not screening.passed
    screening.passes(ScreenTest.GREET, NOW)
    screening.passes(ScreenTest.DNSBL, NOW, 3600)
    assert screening.passed
    outcome = screening.outcome()
    assert outcome == Record((NOW + DAY, NOW + 3600, 1, 1, 1))
    again = Screening(rules(), outcome, NOW + 3599)
    assert not again.due
    late = Screening(rules(), outcome, NOW + 3600)
    assert late.due == {ScreenTest.DNSBL}
    assert not late.record.new


def test_test_that_was_off_is_due_when_it_is_switched_on() -> None:
    outcome = Record((NOW + DAY, NOW + DAY, 1, 1, 1))
    screening = Screening(rules(*DEFAULT, ScreenTest.PIPELINING), outcome, NOW)
    assert screening.due == {ScreenTest.PIPELINING}
    assert not screening.early
    assert screening.needs_engine


@pytest.mark.parametrize(
    ("action", "code"), [(Action.ENFORCE, 550), (Action.DROP, 521), (Action.IGNORE, 450)]
)
def test_failure_before_the_greeting(action: Action, code: int) -> None:
    screening = Screening(rules(action=action), Record(), NOW)
    screening.fail(ScreenTest.GREET)
    screening.passes(ScreenTest.GREET, NOW)  # too late
    screening.passes(ScreenTest.DNSBL, NOW)
    assert screening.answer.code == code
    assert (screening.dropped is not None) == (action is Action.DROP)
    assert screening.needs_engine == (action is not Action.IGNORE)
    assert not screening.passed
    kept = Record((0, NOW + DAY, 1, 1, 1)) if action is Action.IGNORE else None
    assert screening.outcome() == kept


def test_denied_client_has_no_passes() -> None:
    known = Record((NOW + DAY,) * 5)
    screening = Screening(rules(), known, NOW)
    screening.deny(Action.ENFORCE)
    assert screening.early
    assert screening.needs_engine
    assert screening.answer.line == "550 5.3.2 Service currently unavailable"
    screening = Screening(rules(), known, NOW)
    screening.deny(Action.IGNORE)
    assert not screening.due
    assert not screening.needs_engine


def test_veto() -> None:
    screening = Screening(rules(), Record(), NOW)
    screening.veto()
    screening.passes(ScreenTest.GREET, NOW)
    screening.passes(ScreenTest.DNSBL, NOW)
    assert screening.needs_engine
    assert screening.answer.line == "450 4.3.2 Service currently unavailable"
    assert not screening.passed
    assert screening.outcome() is None


@pytest.mark.parametrize("action", [Action.ENFORCE, Action.IGNORE])
def test_deep_tests(action: Action) -> None:
    screening = Screening(rules(*ScreenTest, action=action), Record(), NOW)
    screening.passes(ScreenTest.GREET, NOW)
    screening.passes(ScreenTest.DNSBL, NOW)
    assert screening.needs_engine
    screening.begin_deep_tests()
    screening.fail(ScreenTest.BARE_NEWLINE)
    assert not screening.needs(ScreenTest.BARE_NEWLINE)
    screening.end_deep_tests(NOW)
    assert screening.passed == (action is Action.IGNORE)  # it could never be handed over otherwise
    outcome = screening.outcome()
    assert outcome == (Record((NOW + DAY,) * 5) if action is Action.IGNORE else None)


def test_deep_tests_are_seen_even_if_off() -> None:
    screening = Screening(rules(), Record(), NOW)
    screening.fail(ScreenTest.GREET)
    screening.begin_deep_tests()
    assert all(screening.needs(test) for test in DEEP)


def test_client_that_leaves_before_a_recipient_has_not_passed() -> None:
    screening = Screening(rules(*ScreenTest), Record(), NOW)
    screening.passes(ScreenTest.GREET, NOW)
    screening.passes(ScreenTest.DNSBL, NOW)
    screening.begin_deep_tests()
    assert not screening.passed
    assert screening.outcome() == Record((NOW + DAY, NOW + DAY, 0, 0, 0))


def test_allow_lists_spare_all_tests() -> None:
    screening = Screening(rules(*ScreenTest), Record(), NOW)
    screening.passes(ScreenTest.DNSBL, NOW, 60)
    screening.allowlisted(NOW, 60)
    assert not screening.needs_engine
    assert screening.passed
    assert screening.outcome() == Record((NOW + 60,) * 5)


def test_allow_lists_do_not_help_who_failed() -> None:
    screening = Screening(rules(*ScreenTest), Record(), NOW)
    screening.fail(ScreenTest.GREET)
    screening.allowlisted(NOW, 60)
    assert screening.needs_engine
    assert screening.outcome() is None


def test_a_longer_pass_stays() -> None:
    known = Record((NOW + 9 * DAY, 0, 1, 1, 1))
    screening = Screening(rules(), known, NOW)
    screening.passes(ScreenTest.DNSBL, NOW, 60)
    screening.allowlisted(NOW, 60)
    outcome = screening.outcome()
    assert outcome is not None
    assert outcome.until[0] == NOW + 9 * DAY


def test_stale_entries() -> None:
    record = Record((NOW, NOW - 5, 1, 1, 1))
    assert not record.stale(100, NOW + 99)
    assert record.stale(100, NOW + 100)
