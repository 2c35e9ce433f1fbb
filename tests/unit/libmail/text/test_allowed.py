"""What of a stranger's text may go into ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.text.allowed import allowed_characters, sanitised


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("abc", "abc"),
        (r"\t\40!\\]", "\t !\\]"),
        (r"\n\101\x", "\nAx"),
        ("\\", "\\"),
        (r"\0607", "07"),
        ("", ""),
    ],
)
def test_escapes(text: str, allowed: str) -> None:
    assert allowed_characters(text) == frozenset(allowed)


@given(st.text(max_size=40))
def test_sanitised(text: str) -> None:
    assert set(sanitised(text, frozenset("abc"))) <= set("abc_")
