"""Queue ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.ipc.messages import QueueId
from libmail.queue.ids import is_queue_id, make_queue_id, microseconds_of

times = st.integers(0, 2**36)
fractions = st.integers(0, 999_999)
inodes = st.integers(1, 2**63)


@given(times, fractions, inodes, st.booleans())
def test_ids_are_ids(seconds: int, fraction: int, inode: int, long: bool) -> None:
    queue_id = make_queue_id(seconds, fraction, inode, long=long)
    assert is_queue_id(queue_id)
    assert int(microseconds_of(queue_id), 16) == fraction


@given(times, fractions, times, fractions, inodes)
def test_long_ids_sort_by_time(s1: int, f1: int, s2: int, f2: int, inode: int) -> None:
    first = make_queue_id(s1, f1, inode, long=True)
    second = make_queue_id(s2, f2, inode, long=True)
    if len(first) == len(second):
        assert (first < second) == ((s1, f1) < (s2, f2))


@pytest.mark.parametrize(
    ("seconds", "fraction", "inode", "short", "long"),
    [
        (1_700_000_000, 0x5478F, 0x22CD57, "5478F22CD57", "4SVLCh2RxqzK9sN"),
        (52**6 - 1, 0, 51, "0000033", "zzzzzz0000z10"),
        (52**6, 999_999, 1, "F423F1", "100000075plz1"),
    ],
)
def test_forms(seconds: int, fraction: int, inode: int, short: str, long: str) -> None:
    assert make_queue_id(seconds, fraction, inode, long=False) == short
    assert make_queue_id(seconds, fraction, inode, long=True) == long


@pytest.mark.parametrize(
    "text", ["", "ABC", "../../etc/passwd", "ABCDEF/1", "abcdef1", "4SWXc8z", "ABCDE\n1", "A" * 99]
)
def test_not_ids(text: str) -> None:
    assert not is_queue_id(text)


def test_hash_uses_microseconds() -> None:
    assert microseconds_of(QueueId("5478F22CD57")) == "5478F"
