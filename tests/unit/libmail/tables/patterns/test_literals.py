"""Texts that matches of a pattern contain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tables.patterns.literals import required_text
from libmail.tables.patterns.pcre import PcreEngine
from libmail.tables.patterns.regexp import RegexpEngine
from libmail.tables.patterns.rules import Engine, PatternError


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (b"^Subject: viagra$", b"subject: viagra"),
        (b"example\\.com", b"example.com"),
        (b"foo|bar", b""),
        (b"(foo|bar)baz", b"baz"),
        (b"abc*def?ghi", b"ghi"),
        (b"abcx{0,3}de", b"abc"),
        (b"abc+defg", b"defg"),
        (b"ab\\d+cde", b"cde"),
        (b"abc+?de", b"ab"),  # the regexp type reads it as (c+)?
        (b"[a-z]+\\.exe[]x]", b".exe"),
        (b"a(b[)]c|d)efg", b"efg"),
        (b"\\x41bc", b""),
        (b"a[\\]]bcd", b""),
        (b"(?x) a b c", b""),
        (b"(*UTF)abc", b""),
        (b"(?:ab)cd(?!ef)", b"cd"),
        (b"\\Qa.b\\Ecd", b""),
        (b"abc)def", b""),
        (b"x", b""),
        (b"", b""),
    ],
)
def test_examples(pattern: bytes, expected: bytes) -> None:
    assert required_text(pattern) == expected


PIECES = [
    *"abAB.^$|()[]{}*+?\\-#: 123,",
    "(?:",
    "(?i)",
    "(?=",
    "(?!",
    "[^",
    "[[:alpha:]",
    "\\b",
    "\\d",
    "\\.",
    "\\x61",
    "\\<",
    "{0,1}",
    "*?",
    "a{",
    "\\1",
    "(?#",
]
patterns = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
subjects = st.text("abAB. 123()[]{}-#:,^$|*+?\\", max_size=12)


@pytest.mark.parametrize("engine", [PcreEngine(), RegexpEngine()], ids=lambda e: str(e.kind))
@given(pattern=patterns, subject=subjects)
def test_what_matches_contains_the_text(engine: Engine, pattern: str, subject: str) -> None:
    required = required_text(pattern.encode())
    data = subject.encode()
    if not required or required in data.lower():
        return
    try:
        matcher = engine.compile(pattern.encode(), frozenset(), groups=False)
        assert not matcher.matches(data)
    except PatternError:
        pass
