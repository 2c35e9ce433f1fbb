"""What is shown: nothing that moves a cursor, breaks a line, or turns text around."""

from __future__ import annotations

import ast
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.postqueue.listing import json_lines, table_lines
from libmail.queue.queued import QueuedMessage
from libmail.text.printable import complain, printable, printable_octets, without_controls
from libmail.text.quoting import header_address, shown_address

ROOT = Path(__file__).resolve().parents[3]
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("gr\xfc\xdfe \u4e2d", "gr\xfc\xdfe \u4e2d"),
        ("a\x1b]0;t\x07\r\n\x00b\x7f", "a?]0;t????b?"),
        ("\x9b31m", "?31m"),
        ("\udcff", "?"),
        ("invoice\u202efdp.exe", "invoice?fdp.exe"),
        ("\u2066a\u2069\u200f\u061c", "?a???"),
        ("a\u2028b", "a?b"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # a joiner that Persian needs
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(), max_size=60))
def test_nothing_that_controls_is_left(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    for char in shown:
        assert unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(char) not in BIDI
    shown.encode()


def test_octets_and_controls() -> None:
    assert printable_octets("caf\xe9 \udcff\x07") == "caf?? ??"
    assert without_controls("caf\xe9 \udcff\x07") == "caf\xe9 \udcff?"


def test_addresses() -> None:
    assert shown_address("q\x1bx\u202e@example.test") == '"q?x?"@example.test'
    assert header_address("q\x1bx\udcff@example.test") == '"q?x\udcff"@example.test'


def test_complaint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("postx", "warning: a\nb\x1b[1m")
    assert capsys.readouterr().err == "postx: warning: a?b?[1m\n"


def test_listings_are_printable_json() -> None:
    message = QueuedMessage(
        "deferred", "AB12", time=1, size=2, forced_expire=False, sender="a", recipients=()
    )
    assert json.loads("".join(json_lines([message])))["sender"] == "a"
    assert all(line.isprintable() for line in table_lines([message], long_ids=False))


def _writes(path: Path) -> Iterator[int]:
    """Lines that write to standard error by themselves."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.stderr.write":
            yield node.lineno


def test_complaints_have_one_place() -> None:
    """A text of our own may go there as it is; what holds text from elsewhere may not."""
    allowed = {"commands/qshape.py", "libmail/text/printable.py", "libmail/service/main.py"}
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("commands", "daemons", "libmail", "master")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in allowed
        for line in _writes(path)
    ]
    assert not found
