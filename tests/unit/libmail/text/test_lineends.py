"""The searches for line ends against their definitions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.text import lineends

CASES = [
    (lineends.has_stray_line_end, rb"(?<!\r)\n|\r(?!\n)"),
    (lineends.has_bare_newline, rb"(?<!\r)\n"),
    (lineends.has_doubled_return, rb"\r\r\n"),
    (lineends.has_leading_dot, rb"\n\."),
]

content = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\0", b"\xff"]), max_size=40)


@given(content.map(b"".join))
def test_searches(data: bytes) -> None:
    for search, pattern in CASES:
        expected = re.search(pattern, data) is not None
        assert search(data) is expected


@pytest.mark.parametrize("where", [0, 70_000, 999_999])
def test_in_large_content(where: int) -> None:
    data = bytearray((b"x" * 70 + b"\r\n") * 20_000)
    assert not lineends.has_stray_line_end(bytes(data))
    data[where : where + 1] = b"\r"
    assert lineends.has_stray_line_end(bytes(data))
