"""Policy delegation: requests and answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.smtp.policy import PolicyAnswer, PolicyError, encode_request


def test_request() -> None:
    assert encode_request([("request", "smtpd_access_policy"), ("sender", "a\nb=\udcff")]) == (
        b"request=smtpd_access_policy\nsender=a?b=\xff\n\n"
    )


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (b"action=dunno\n\n", "dunno"),
        (b"action=dunno\r\n\r\n", "dunno"),
        (b"action=\n\n", ""),
        (b"x=1\naction = 450 4.7.1 a=b \n\n", "450 4.7.1 a=b"),
    ],
)
def test_answers_at_any_chunking(answer: bytes, action: str) -> None:
    for at in range(len(answer)):
        one = PolicyAnswer()
        assert one.receive_data(answer[:at]) is None
        assert one.receive_data(answer[at:]) == action


@pytest.mark.parametrize(
    "answer",
    [b"\n", b"\r\n", b"x=1\n\n", b"nothing\n\n", b"action=a\n\naction=b\n\n",
     b"x" * 70000],
)  # fmt: skip
def test_broken_answers(answer: bytes) -> None:
    with pytest.raises(PolicyError):
        PolicyAnswer().receive_data(answer)


@given(st.binary(max_size=60))
def test_anything(data: bytes) -> None:
    try:
        PolicyAnswer().receive_data(data + b"\n\n")
    except PolicyError as error:
        text = str(error)
        if not text.isprintable():
            raise AssertionError(text) from None
