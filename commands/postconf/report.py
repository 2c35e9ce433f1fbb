"""What postconf writes: results to standard output, warnings to standard error."""

from __future__ import annotations

import io
import sys

from libmail.text.printable import complain, printable_octets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["fold_words", "json_line", "print_lines", "squeeze", "warn"]

SEPARATORS = " \t\r\n"
LINE_LIMIT = 80
INDENT = "    "


def warn(text: str) -> None:
    """Write a warning."""
    complain("postconf", f"warning: {printable_octets(text)}")


def print_lines(lines: Iterable[str]) -> None:
    """Write results; octets that are no text come out as they were read."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    sys.stdout.writelines(f"{line}\n" for line in lines)


def json_line(name: str, value: str) -> str:
    """`{"name": "value"}`, with octets that are no text replaced."""
    import json

    octets = value.encode("utf-8", "surrogateescape")
    return json.dumps({name: octets.decode("utf-8", "replace")}, ensure_ascii=False)


def squeeze(value: str) -> str:
    """The words of a value with one space between them."""
    return " ".join(_words(value))


def fold_words(text: str) -> str:
    """The words in lines of less than 80 characters where possible, the later ones indented."""
    line, *words = _words(text) or [""]
    lines: list[str] = []
    for word in words:
        if len(line) + 1 + len(word) < LINE_LIMIT:
            line = f"{line} {word}"
        else:
            lines.append(line)
            line = INDENT + word
    return "\n".join([*lines, line])


def _words(text: str) -> list[str]:
    for space in SEPARATORS:
        text = text.replace(space, " ")
    return [word for word in text.split(" ") if word]
