"""Logical lines of table sources.

A line that starts with white space continues the line before it; empty lines and lines whose
first other character is `#` are left out, wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from libmail.files.freshness import read_source
from libmail.tables.braces import split_list, strip_braces
from libmail.tables.table import TableConfigError

__all__ = ["logical_lines", "read_rules"]

_BLANKS: Final = " \t\r\n\v\f"
_SHOWN: Final = 30  # characters of a line in the log
_INDENT: Final = frozenset(("", *_BLANKS))


def logical_lines(
    lines: Iterable[str], orphan: Callable[[str], object] | None = None
) -> Iterator[tuple[int, str]]:
    """Give (number of the first physical line, text) for each logical line.

    The line end is taken off each physical line; the rest of the white space stays.
    orphan: is told of an indented line that there is nothing before to continue, which is then
    left out; without it such a line counts.
    """
    first, text = 0, ""
    lost = False  # what an indented line would continue has been left out
    for number, line in enumerate(lines, 1):
        start = line[:1]
        if start in _INDENT or start == "#":
            content = line.lstrip(_BLANKS)
            if not content or content[0] == "#":
                continue
            if first and start in _INDENT:
                text += line.removesuffix("\n")
                continue
            if orphan is not None and start in _INDENT:
                if not lost:
                    orphan(_without_start(line.removesuffix("\n")))
                lost = True
                continue
        if first:
            yield first, text
        first, text = number, line.removesuffix("\n")
    if first:
        yield first, text


def _without_start(line: str) -> str:
    shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
    return f'logical line must not start with whitespace: "{shown}"'


def read_rules(kind: str, name: str) -> list[tuple[int, str]]:
    """Read the rules of a pattern table: from a file, or from an inline body `{ {rule} ... }`.

    Raises `TableConfigError`.
    """
    if name.startswith("{"):
        return _inline_rules(kind, name)
    try:
        with read_source(name) as file:
            return list(logical_lines(file))
    except OSError as error:
        raise TableConfigError(f"open {name}: {error.strerror}") from error


def _inline_rules(kind: str, name: str) -> list[tuple[int, str]]:
    try:
        rules = [strip_braces(rule) for rule in split_list(strip_braces(name))]
    except ValueError as error:
        raise TableConfigError(f"{kind} map: {error}") from None
    return list(logical_lines(f"{rule}\n" for rule in rules))
