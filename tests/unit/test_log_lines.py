"""No line that a log analyser knows is free text: each is an event, with a class of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.log_patterns import known_to

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = ("libmail", "daemons", "commands", "master")
METHODS: Final = frozenset(("info", "warning", "error", "seldom"))

# What passes on text from elsewhere at level info. Its callers are told by the rest of this test.
RELAYS: Final = frozenset(("commands/postfix/report.py", "commands/postsuper/__init__.py"))


def template(node: ast.expr) -> str:
    """The text that an expression makes, with a NUL for what is not known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(template(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case ast.IfExp(body=body):
            return template(body)
        case _:
            return "\0"


def free_lines(source: bytes) -> Iterator[tuple[int, str, str]]:
    """(line, method, template) of what is logged as free text."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="LOG"), attr=method), args=[text, *_]
            ) if method in METHODS:
                yield node.lineno, method, template(text)


def every_line() -> Iterator[tuple[str, str, str]]:
    for path in sorted(path for name in PROGRAMS for path in (ROOT / name).rglob("*.py")):
        place = str(path.relative_to(ROOT))
        for line, method, text in free_lines(path.read_bytes()):
            yield f"{place}:{line}", method, text


def test_no_free_text_that_tools_know() -> None:
    found = [f"{place}: {known_to(text)}" for place, _, text in every_line() if known_to(text)]
    assert found == []


def test_no_ordinary_line_of_unknown_text() -> None:
    """At level info nothing is logged that cannot be seen from the call."""
    found = [
        place
        for place, method, text in every_line()
        if method == "info" and not text.strip("\0: ") and place.partition(":")[0] not in RELAYS
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ('LOG.info(f"{a}: client={b}")', True),
        ('LOG.info(f"{a}: to=<{b}>, relay={c}, status={d} ({e})")', True),
        ('LOG.warning(f"{client}: SASL {name} authentication failed: {reason}")', True),
        ('LOG.info("connect from " + client)', True),
        ('LOG.info(f"{queue_id}: removed")', True),
        ('LOG.info(f"{queue_id}: milter-reject: {reason}")', True),
        ('LOG.info(f"PREGREET {n} after {t} from {client}")', True),
        ('LOG.info(f"Untrusted TLS connection established to {peer}")', True),
        ('LOG.warning(f"open {path}: {reason}")', False),
        ('LOG.warning(f"connect to transport private/{name}: {reason}")', False),
        ('LOG.info(f"{path}: rebuilt from {name}")', False),
    ],
)
def test_the_scan(source: str, known: bool) -> None:
    ((_, _, text),) = free_lines(source.encode())
    assert bool(known_to(text)) is known
