"""The syntax of main.cf."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.config.errors import ConfigError
from libmail.config.main_cf import parse_main_cf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = b\n", [("a", "b", 1)]),
        ("# c\n\na=b", [("a", "b", 3)]),
        ("a = b\n  c\n# comment\n\td\ne=f", [("a", "b  c\td", 1), ("e", "f", 5)]),
        ("a = 1\n# c\n\n   \n  2\n", [("a", "1  2", 1)]),
        ("a =\n", [("a", "", 1)]),
        ("foo\n = bar\n", [("foo", "bar", 1)]),
        ("a\t=\t x\t y  \r\n", [("a", "x\t y", 1)]),
        ("a == x", [("a", "= x", 1)]),
        ("a = 1\na = 2\n", [("a", "1", 1), ("a", "2", 2)]),
    ],
)
def test_settings(text: str, expected: list[tuple[str, str, int]]) -> None:
    entries, warnings = parse_main_cf(text, "main.cf")
    assert [(entry.name, entry.value, entry.line) for entry in entries] == expected
    assert warnings == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a = b\nfoo", "main.cf, line 2: missing '=' after attribute name: \"foo\""),
        ("foo bar = x", "main.cf, line 1: missing '=' after attribute name: \"foo bar = x\""),
        ("= x", 'main.cf, line 1: missing attribute name: "= x"'),
    ],
)
def test_mistakes(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_main_cf(text, "main.cf")
    assert str(caught.value) == complaint


def test_file_that_begins_with_white_space() -> None:
    entries, warnings = parse_main_cf(" a = b\nc = d", "F")
    assert [entry.name for entry in entries] == ["c"]
    assert warnings == ('F: logical line must not start with whitespace: " a = b"',)


@settings(max_examples=200)
@given(st.text(alphabet="ab =#\n\t\r{}$\udc80\u00a0\u2028", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        entries, _ = parse_main_cf(text, "F")
    except ConfigError:
        return
    assert all(entry.name and "\n" not in entry.value for entry in entries)
