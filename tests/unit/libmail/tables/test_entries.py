"""Sources of tables, line by line and at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.tables.entries import EntryError, parse_entry, plain_entries
from libmail.tables.lines import logical_lines


def line_by_line(text: str) -> dict[bytes, bytes] | None:
    """None: there is something to warn of."""
    entries: dict[bytes, bytes] = {}
    # \r, \v, \f are white space within a line, not line ends.
    for _, line in logical_lines(line + "\n" for line in text.split("\n")):
        try:
            key, value, remark = parse_entry(line)
        except EntryError:
            return None
        if remark or key.lower().encode() in entries:
            return None
        entries[key.lower().encode()] = value.encode()
    return entries


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", True),
        ("a b\n", True),
        ("a b", True),
        ("# comment\n\nA@b.Test  x y \t\n", True),
        ("a b\n  c\n", False),
        ("a b\r\n", False),
        ("z y\nb c\na d\n", True),
        ('"a b"@c d\n', False),
        ("a: b\n", False),
        ("a\n", False),
        ("a b\nA c\n", False),
        ("a b\n\tc d\n", False),
        ("a bé\n", False),
    ],
)
def test_what_is_plain(text: str, plain: bool) -> None:
    entries = plain_entries(text.encode(), fold=True, end=b"")
    assert (entries is not None) == plain
    if plain:
        assert entries == line_by_line(text)


@given(st.text('aAb:#"\\ \t\n\r\v\f@.', max_size=40))
def test_both_ways_agree(text: str) -> None:
    entries = plain_entries(text.encode(), fold=True, end=b"")
    if entries is not None:
        assert entries == line_by_line(text)
