"""Frames made by hand are those of the codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.ipc.frames import MAX_FRAME, WireError, frame, frame_attributes
from libmail.ipc.messages import (
    CODEC,
    FlushReply,
    QueueFlush,
    QueueId,
    Recipient,
    Recipients,
    SubmitOpen,
    SubmitResult,
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**31)


@given(TEXT, st.booleans(), TEXT, NUMBER, TEXT, TEXT)
def test_submit_open_is_that_of_the_codec(
    sender: str, null: bool, name: str, flags: int, envid: str, verp: str
) -> None:
    data = frame(
        "SubmitOpen", sender=sender, null_sender=null, full_name=name, flags=flags,
        dsn_envid=envid, verp_delims=verp, cleanup_flags=0, size=7,
    )  # fmt: skip
    message = SubmitOpen(sender, null, name, flags, envid, verp, 0, 7)
    assert data == CODEC.encode(message)
    assert CODEC.decode(data[4:]) == message


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, NUMBER, NUMBER), max_size=4))
def test_recipients_are_those_of_the_codec(items: list[tuple[str, str, str, int, int]]) -> None:
    message = Recipients(tuple(Recipient(*item) for item in items))
    assert frame("Recipients", recipients=items) == CODEC.encode(message)


def test_flush_is_that_of_the_codec() -> None:
    assert frame("QueueFlush", queue_id="ABC") == CODEC.encode(QueueFlush(QueueId("ABC")))


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (FlushReply("no"), {"reason": "no"}),
        (SubmitResult(75, "\udcff", QueueId("A1")),
         {"exit_status": "75", "reason": "\udcff", "queue_id": "A1"}),
    ],
)  # fmt: skip
def test_answers_of_the_codec_are_read(message: object, want: dict[str, str]) -> None:
    assert frame_attributes(CODEC.attributes(message), type(message).__name__) == want


@given(st.binary(max_size=80))
def test_any_frame_is_read_or_refused(data: bytes) -> None:
    for noise in (data, b"request\0FlushReply\0" + data):
        try:
            found = frame_attributes(noise, "FlushReply")
        except WireError:
            continue
        assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize("value", ["a\0b", "x" * MAX_FRAME])
def test_what_no_frame_can_hold_is_refused(value: str) -> None:
    with pytest.raises(WireError):
        frame("QueueFlush", queue_id=value)
