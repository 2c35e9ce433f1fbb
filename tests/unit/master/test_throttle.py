"""When a service that crashes has to wait."""

import pytest

from master.throttle import CrashPolicy

SHORT, LONG = 0.2, 60.0
THROTTLE, RECOVERY = 77.0, 1.0

CASES = [
    # how it died, and after how long: the pauses
    ("dies at the start", [("start", SHORT)], [THROTTLE]),
    ("dies late without having served", [("start", LONG)], [THROTTLE]),
    ("dies while it serves", [("served", LONG)] * 10, [0.0] * 10),
    ("one short life", [("served", SHORT)], [0.0]),
    ("short lives in a row", [("served", SHORT)] * 6, [0.0] * 4 + [THROTTLE, 0.0]),
    (
        "a long life in between",
        [("served", SHORT)] * 4 + [("served", LONG)] + [("served", SHORT)] * 4,
        [0.0] * 9,
    ),
    ("killed at the start", [("killed", SHORT)], [0.0]),
    ("killed again and again", [("killed", SHORT)] * 6, [0.0] * 4 + [RECOVERY, 0.0]),
    ("killed now and then", [("killed", LONG)] * 10, [0.0] * 10),
]


@pytest.mark.parametrize(("crashes", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_pause_after(crashes: list[tuple[str, float]], want: list[float]) -> None:
    policy = CrashPolicy()
    pauses = [
        policy.pause_after(
            served=how == "served", killed=how == "killed", life=life, throttle_time=THROTTLE
        )
        for how, life in crashes
    ]
    assert pauses == want


def test_a_good_end_is_a_new_beginning() -> None:
    policy = CrashPolicy()
    for _ in range(20):
        assert not policy.pause_after(served=True, killed=False, life=SHORT, throttle_time=THROTTLE)
        policy.went_well()
