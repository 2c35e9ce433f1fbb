"""How the TLS library is bound."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from libmail.tls import library

SOURCES = sorted(Path(library.__file__).parent.glob("*.py"))


def types_in(source: Path) -> Iterator[str]:
    """The types that a module makes or casts to, as it writes them."""
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            kind = node.args[0]
            known = node.func.attr in ("new", "cast", "from_buffer")
            if known and isinstance(kind, ast.Constant) and isinstance(kind.value, str):
                yield kind.value


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_types_are_parsed_before_a_fork(source: Path) -> None:
    unparsed = [
        name for name in types_in(source) if library.FFI.typeof(name) not in library.PARSED_TYPES
    ]
    assert not unparsed
