"""What tests a client has to pass, what it is told, and what is remembered of it."""

from __future__ import annotations

import pytest

from daemons.postscreen.trial import Case
from daemons.postscreen.trials import LATE, Action, Record, Rules, Trial, read_record

NOW = 1_700_000_000
DAY = 86400
TTL = dict.fromkeys(Trial, DAY)
DEFAULT = (Trial.GREET, Trial.DNSBL)


def rules(*enabled: Trial, action: Action = Action.ENFORCE) -> Rules:
    return Rules(frozenset(enabled or DEFAULT), dict.fromkeys(Trial, action), TTL)


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
    case = Case(rules(), Record(), NOW)
    assert case.record.new
    assert case.early
    assert not case.talks_to_us
    assert not case.passed
    case.passes(Trial.GREET, NOW)
    case.passes(Trial.DNSBL, NOW, 3600)
    assert case.passed
    outcome = case.outcome()
    assert outcome == Record((NOW + DAY, NOW + 3600, 1, 1, 1))
    again = Case(rules(), outcome, NOW + 3599)
    assert not again.due
    late = Case(rules(), outcome, NOW + 3600)
    assert late.due == {Trial.DNSBL}
    assert not late.record.new


def test_test_that_was_off_is_due_when_it_is_switched_on() -> None:
    outcome = Record((NOW + DAY, NOW + DAY, 1, 1, 1))
    case = Case(rules(*DEFAULT, Trial.PIPELINING), outcome, NOW)
    assert case.due == {Trial.PIPELINING}
    assert not case.early
    assert case.talks_to_us


@pytest.mark.parametrize(
    ("action", "code"), [(Action.ENFORCE, 550), (Action.DROP, 521), (Action.IGNORE, 450)]
)
def test_failure_before_the_greeting(action: Action, code: int) -> None:
    case = Case(rules(action=action), Record(), NOW)
    case.fail(Trial.GREET)
    case.passes(Trial.GREET, NOW)  # too late
    case.passes(Trial.DNSBL, NOW)
    assert case.answer.code == code
    assert (case.dropped is not None) == (action is Action.DROP)
    assert case.talks_to_us == (action is not Action.IGNORE)
    assert not case.passed
    kept = Record((0, NOW + DAY, 1, 1, 1)) if action is Action.IGNORE else None
    assert case.outcome() == kept


def test_denied_client_has_no_passes() -> None:
    known = Record((NOW + DAY,) * 5)
    case = Case(rules(), known, NOW)
    case.deny(Action.ENFORCE)
    assert case.early
    assert case.talks_to_us
    assert case.answer.line == "550 5.3.2 Service currently unavailable"
    case = Case(rules(), known, NOW)
    case.deny(Action.IGNORE)
    assert not case.due
    assert not case.talks_to_us


def test_veto() -> None:
    case = Case(rules(), Record(), NOW)
    case.veto()
    case.passes(Trial.GREET, NOW)
    case.passes(Trial.DNSBL, NOW)
    assert case.talks_to_us
    assert case.answer.line == "450 4.3.2 Service currently unavailable"
    assert not case.passed
    assert case.outcome() is None


@pytest.mark.parametrize("action", [Action.ENFORCE, Action.IGNORE])
def test_deep_tests(action: Action) -> None:
    case = Case(rules(*Trial, action=action), Record(), NOW)
    case.passes(Trial.GREET, NOW)
    case.passes(Trial.DNSBL, NOW)
    assert case.talks_to_us
    case.begin_late()
    case.fail(Trial.BARE_NEWLINE)
    assert not case.needs(Trial.BARE_NEWLINE)
    case.end_late(NOW)
    assert case.passed == (action is Action.IGNORE)  # it could never be handed over otherwise
    outcome = case.outcome()
    assert outcome == (Record((NOW + DAY,) * 5) if action is Action.IGNORE else None)


def test_deep_tests_are_seen_even_if_off() -> None:
    case = Case(rules(), Record(), NOW)
    case.fail(Trial.GREET)
    case.begin_late()
    assert all(case.needs(trial) for trial in LATE)


def test_client_that_leaves_before_a_recipient_has_not_passed() -> None:
    case = Case(rules(*Trial), Record(), NOW)
    case.passes(Trial.GREET, NOW)
    case.passes(Trial.DNSBL, NOW)
    case.begin_late()
    assert not case.passed
    assert case.outcome() == Record((NOW + DAY, NOW + DAY, 0, 0, 0))


def test_allow_lists_spare_all_tests() -> None:
    case = Case(rules(*Trial), Record(), NOW)
    case.passes(Trial.DNSBL, NOW, 60)
    case.vouched_for(NOW, 60)
    assert not case.talks_to_us
    assert case.passed
    assert case.outcome() == Record((NOW + 60,) * 5)


def test_allow_lists_do_not_help_who_failed() -> None:
    case = Case(rules(*Trial), Record(), NOW)
    case.fail(Trial.GREET)
    case.vouched_for(NOW, 60)
    assert case.talks_to_us
    assert case.outcome() is None


def test_a_longer_pass_stays() -> None:
    known = Record((NOW + 9 * DAY, 0, 1, 1, 1))
    case = Case(rules(), known, NOW)
    case.passes(Trial.DNSBL, NOW, 60)
    case.vouched_for(NOW, 60)
    outcome = case.outcome()
    assert outcome is not None
    assert outcome.until[0] == NOW + 9 * DAY


def test_stale_entries() -> None:
    record = Record((NOW, NOW - 5, 1, 1, 1))
    assert not record.stale(100, NOW + 99)
    assert record.stale(100, NOW + 100)
