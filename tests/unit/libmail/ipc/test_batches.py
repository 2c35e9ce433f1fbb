"""Whatever the elements are, each batch makes a frame that may be sent."""

from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.ipc.batches import batches
from libmail.ipc.messages import CODEC, Recipient, Recipients

WORDS = st.sampled_from(["", "a@b.test", "x" * 2048, "ä" * 1024, "\udcff" * 2000, "z" * 8000])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=6), st.integers(1, 300))
def test_frames_fit(kinds: list[tuple[str, str, str]], repeat: int) -> None:
    recipients = [Recipient(*kind) for kind in kinds for _ in range(repeat)]
    found = list(batches(recipients, 500))
    assert [one for group in found for one in group] == recipients
    assert all(0 < len(group) <= 500 for group in found)
    for group in found:
        CODEC.encode(Recipients(group))


def test_small_ones_go_together() -> None:
    assert [len(group) for group in batches(["a@b.test"] * 1200, 500)] == [500, 500, 200]
