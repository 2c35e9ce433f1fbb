"""Searches in content, with libpcre2 and with module re."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.text import search
from libmail.text.pcre2 import LIBRARY
from libmail.text.search import contains, first_of

octets = st.sampled_from([b"a", b"A", b"b", b".", b"\\", b"\n", b"\0", b"\xe4", b"\xc4"])
data = st.lists(octets, max_size=40).map(b"".join)
texts = st.sets(st.lists(octets, min_size=1, max_size=6).map(b"".join), max_size=12)

WITHOUT = pytest.mark.parametrize("library", [LIBRARY, None], ids=["libpcre2", "re"])


@WITHOUT
@given(data)
def test_contains(library: object, text: bytes) -> None:
    for pattern in (rb"(?<!\r)\n|\r(?!\n)", rb"\n\."):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "LIBRARY", library)
            assert contains(pattern)(text) is (re.search(pattern, text) is not None)


def where(wanted: set[bytes], text: bytes, start: int) -> int:
    found = (text.lower().find(one.lower(), start) for one in wanted)
    return min((at for at in found if at >= 0), default=-1)


@WITHOUT
@given(texts, data, st.integers(0, 40))
def test_first_of(library: object, wanted: set[bytes], text: bytes, start: int) -> None:
    start = min(start, len(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LIBRARY", library)
        assert first_of(wanted)(text, start) == where(wanted, text, start)


def test_many_and_long_texts() -> None:
    wanted = [f"text {n} {'x' * 1000}".encode() for n in range(2000)]
    find = first_of(wanted)
    assert find(b"- text 17 - " + wanted[1234], 0) == 12
    assert find(b"text", 0) == -1


def test_texts_that_branch_everywhere() -> None:
    wanted = [b"a" * n + b"b" for n in range(1, 64)]
    find = first_of(wanted)
    assert find(b"b" + b"a" * 10_000 + b"b", 0) == 1  # of long texts, the beginning
    assert find(b"a" * 10 + b"b", 4) == 4
    assert find(b"b" * 10_000, 0) == -1


@pytest.mark.skipif(LIBRARY is None, reason="no libpcre2 on this machine")
def test_the_compiler_is_used() -> None:
    assert LIBRARY is not None
    assert search._Compiled(LIBRARY, rb"x").contains()(b"x")
