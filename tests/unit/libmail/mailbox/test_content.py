"""The form of messages in mailboxes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.mailbox.content import delivery_headers, mbox_from_line, quote_from


def test_headers() -> None:
    assert delivery_headers(sender="a@b", orig_rcpt="c@d", delivered_to="e@f") == (
        b"Return-Path: <a@b>\nX-Original-To: c@d\nDelivered-To: e@f\n"
    )
    assert delivery_headers(sender="") == b"Return-Path: <>\n"
    assert delivery_headers(sender=None) == b""


@pytest.mark.parametrize(
    ("sender", "line"),
    [
        ("", b"From MAILER-DAEMON  X\n"),
        ("a@b", b"From a@b  X\n"),
        ('"a b"@c', b'From "a b"@c  X\n'),
        ("a\n\nFrom b@c", b"From a__From b@c  X\n"),
    ],
)
def test_from_line(sender: str, line: bytes) -> None:
    assert mbox_from_line(sender, "X") == line


@given(st.lists(st.sampled_from([b"From x", b"From", b">From x", b" From y", b"z", b""])))
@settings(max_examples=50)
def test_quote_from(lines: list[bytes]) -> None:
    quoted = quote_from(b"\n".join(lines)).split(b"\n")
    assert not any(line.startswith(b"From ") for line in quoted)
    plain = [line[1:] if line.startswith(b">From ") else line for line in quoted]
    assert plain == [line[1:] if line.startswith(b">From ") else line for line in lines or [b""]]
