"""The window of concurrency of a destination."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemons.qmgr import backoff_of
from daemons.qmgr.backoff import Backoff
from daemons.qmgr.feedback import Feedback, FeedbackSyntax, Scale, Window, WindowRules
from daemons.qmgr.params import QmgrParams
from libmail.config import open_config


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1", Feedback(1.0)),
        ("0.5", Feedback(0.5)),
        (".25", Feedback(0.25)),
        ("1/4", Feedback(0.25)),
        (" 1 / 8 ", Feedback(0.125)),
        ("1/concurrency", Feedback(1.0, Scale.CONCURRENCY)),
        ("0.5 / sqrt_concurrency", Feedback(0.5, Scale.SQUARE_ROOT)),
    ],
)
def test_feedback_forms(text: str, want: Feedback) -> None:
    assert Feedback.parse(text) == want


@pytest.mark.parametrize("text", ["", "x", "2", "1/0", "3/2", "1/cohort", "-1", "1/", "1e3"])
def test_bad_feedback(text: str) -> None:
    with pytest.raises(FeedbackSyntax):
        Feedback.parse(text)


def rules(positive: str = "1", negative: str = "1", cohorts: int = 1) -> WindowRules:
    return WindowRules(5, 20, Feedback.parse(positive), Feedback.parse(negative), cohorts)


@pytest.mark.parametrize(
    ("positive", "busy", "events", "want"),
    [
        ("1", 20, 1, 6),
        ("1", 20, 40, 20),
        ("1/concurrency", 20, 4, 5),
        ("1/concurrency", 20, 5, 6),
        ("1/2", 20, 3, 6),
        ("0", 20, 50, 5),
        ("1", 1, 50, 6),  # not much wider than it is used
    ],
)
def test_success_widens(positive: str, busy: int, events: int, want: int) -> None:
    window = Window(rules(positive=positive))
    for _ in range(events):
        window.succeeded(busy)
    assert window.concurrency == want


def test_failure_narrows_at_the_start_of_the_cycle() -> None:
    window = Window(rules(negative="1/concurrency", cohorts=10))
    seen = []
    for _ in range(6):
        assert not window.failed()
        seen.append(window.concurrency)
    assert seen == [4, 4, 4, 4, 3, 3]


@pytest.mark.parametrize(("cohorts", "failures"), [(1, 4), (2, 5), (0, None)])
def test_dead_after_failed_cohorts(cohorts: int, failures: int | None) -> None:
    window = Window(rules(cohorts=cohorts))
    dead_after = next((n for n in range(1, 50) if window.failed()), None)
    assert dead_after == failures
    assert window.concurrency == (0 if failures else 1)


def test_success_forgives_failed_cohorts() -> None:
    window = Window(rules(positive="0", negative="0"))
    for _ in range(20):
        assert not window.failed()
        window.succeeded(5)


@settings(max_examples=60)
@given(
    st.lists(st.booleans(), max_size=80),
    st.sampled_from(["0", "1", "1/3", "1/concurrency", "1/sqrt_concurrency"]),
    st.sampled_from(["0", "1", "1/3", "1/concurrency", "1/sqrt_concurrency"]),
    st.integers(0, 4),
)
def test_window_stays_in_its_bounds(
    events: list[bool], positive: str, negative: str, cohorts: int
) -> None:
    window = Window(rules(positive, negative, cohorts))
    dead = False
    for success in events:
        if success:
            window.succeeded(window.concurrency)
        else:
            dead = window.failed()
        assert dead == (window.concurrency == 0)
        assert 0 <= window.concurrency <= 20


HOUR = 3600.0


@pytest.mark.parametrize(
    ("age", "wait"),
    [(0, 300), (299, 300), (301, 301), (900, 900), (4000, 4000), (4001, 4000), (90000, 4000)],
)
def test_back_off_doubles_the_age(age: float, wait: float) -> None:
    assert Backoff(300, 4000, 1, 1).next_try(1000, 1000 + age) == 1000 + age + wait


@pytest.mark.parametrize(
    ("sender", "age", "want"),
    [
        ("a@b", 4.9 * HOUR, False),
        ("a@b", 5 * HOUR, True),
        ("", 1.9 * HOUR, False),
        ("", 2 * HOUR, True),
    ],
)
def test_lifetime(sender: str, age: float, want: bool) -> None:
    assert Backoff(300, 4000, 5 * HOUR, 2 * HOUR).expired(sender, 1000, 1000 + age) is want


def test_no_lifetime_means_one_try() -> None:
    assert Backoff(300, 4000, 0, 0).expired("a@b", 1000, 1000)


@pytest.mark.parametrize(("hours", "seconds"), [(1, 3600), (200, 432000)])
def test_reports_live_no_longer_than_other_mail(hours: int, seconds: int, tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"maximal_queue_lifetime = {hours}h\n")
    assert backoff_of(open_config(str(tmp_path)).load(QmgrParams)).bounce_lifetime == seconds
