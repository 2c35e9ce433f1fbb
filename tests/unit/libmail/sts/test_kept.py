"""Policies in the cache: written and read again, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.sts.kept import KeptPolicy
from libmail.sts.policy import Mode, Policy

KEPT = KeptPolicy("id1", 1000, 2000, Policy(Mode.ENFORCE, ("mx.a.test", "*.b.test"), 600_000))
VALUE = "id1 1000 2000 enforce 600000 mx.a.test *.b.test"


def test_written_and_read() -> None:
    assert KEPT.value() == VALUE
    assert KeptPolicy.parse(VALUE) == KEPT
    none = KeptPolicy("x", 1, 1, Policy(Mode.NONE, (), 0))
    assert KeptPolicy.parse(none.value()) == none


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "id1 1000 2000 enforce",
        "id1 1000 2000 enforce 600000",
        "id1 1000 2000 force 600000 mx.a.test",
        "id1 1000 2000 enforce 600000 mx.a.test ",
        "id1 1000 2000 enforce 600000 mx_of(a)",
        "i-d 1000 2000 enforce 600000 mx.a.test",
        "id1 -100 2000 enforce 600000 mx.a.test",
        "id1 1000 \u0662 enforce 600000 mx.a.test",
        f"id1 {9 * 10**12} 2000 enforce 600000 mx.a.test",
        f"id1 {'9' * 5000} 2000 enforce 600000 mx.a.test",
        "1795372833",
        "id1 1000 2000 enforce 600000 mx.a.test\nmode:none",
    ],
)
def test_what_is_no_policy(value: str | None) -> None:
    assert KeptPolicy.parse(value) is None


@given(st.text())
def test_anything(value: str) -> None:
    found = KeptPolicy.parse(value)
    assert found is None or KeptPolicy.parse(found.value()) == found


def test_times() -> None:
    assert not KEPT.over(600_999)
    assert KEPT.over(601_000)
    assert not KEPT.ageing(1000 + 86_399)
    assert KEPT.ageing(1000 + 86_400)
    short = replace(KEPT, policy=replace(KEPT.policy, max_age=60))
    assert not short.ageing(1029)
    assert short.ageing(1030)
    assert KEPT.ageing(999)  # the clock was set back
    assert KEPT.used_at(5000.5) == replace(KEPT, used=5000)
    assert (KEPT.unused(2500), KEPT.unused(0)) == (500, 0)
