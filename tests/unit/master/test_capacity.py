"""How many processes, for how many clients: the maxproc column."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from master.capacity import NO_LIMIT, Limit, limit_of, sessions_in_a_life

CASES = [
    # maxproc, kind: per process, processes, clients
    ("default", None, "", Limit(250, 100, NO_LIMIT)),
    ("two clients", 2, "", Limit(250, NO_LIMIT, 2)),
    ("many clients", 1000, "", Limit(250, NO_LIMIT, 1000)),
    ("unlimited", 0, "", Limit(250, NO_LIMIT, NO_LIMIT)),
    ("one client each", 5, "one_client", Limit(1, 5, NO_LIMIT)),
    ("one client each, default", None, "one_client", Limit(1, 100, NO_LIMIT)),
    ("one client each, unlimited", 0, "one_client", Limit(1, NO_LIMIT, NO_LIMIT)),
    ("a thread each", 5, "threads", Limit(250, NO_LIMIT, 5)),
    ("a thread each, default", None, "threads", Limit(250, NO_LIMIT, 100)),
    ("a thread each, unlimited", 0, "threads", Limit(250, NO_LIMIT, NO_LIMIT)),
    ("shared, one process", 1, "shared", Limit(250, 1, NO_LIMIT)),
    ("shared, default", None, "shared", Limit(250, 100, NO_LIMIT)),
]


@pytest.mark.parametrize(
    ("maxproc", "kind", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_limit_of(maxproc: int | None, kind: str, want: Limit) -> None:
    limit = limit_of(
        maxproc,
        default_process_limit=100,
        sessions_per_process=250,
        **({kind: True} if kind else {}),
    )
    assert limit == want


NEXT = [
    ("first of two clients", Limit(250, clients=2), [], 2),
    ("both taken", Limit(250, clients=2), [2], 0),
    ("one left by a retiring process", Limit(250, clients=2), [1], 1),
    ("full processes, room for more", Limit(250, clients=600), [250, 250], 100),
    ("all given out", Limit(250, clients=600), [250, 250, 100], 0),
    ("process limit", Limit(1, processes=2), [1, 1], 0),
    ("below the process limit", Limit(1, processes=2), [1], 1),
    ("no limit", Limit(250), [250] * 1000, 250),
]


@pytest.mark.parametrize(("limit", "held", "want"), [c[1:] for c in NEXT], ids=[c[0] for c in NEXT])
def test_next_capacity(limit: Limit, held: list[int], want: int) -> None:
    assert limit.next_capacity(held) == want


@given(st.integers(1, 300), st.integers(1, 2000))
def test_clients_are_never_more_than_maxproc(per_process: int, clients: int) -> None:
    limit = Limit(per_process, clients=clients)
    held: list[int] = []
    while capacity := limit.next_capacity(held):
        assert capacity <= per_process
        held.append(capacity)
    assert sum(held) == clients


def test_a_process_lives_as_long_as_those_that_it_stands_for() -> None:
    assert sessions_in_a_life(100, 250) == 25000
    assert sessions_in_a_life(0, 250) == 0
