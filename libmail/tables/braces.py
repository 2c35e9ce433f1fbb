"""Lists with `{ }` groups, as parameter values and inline tables have them.

`split_list("lmdb:/a, inline:{ {k = v}, x=y }")` gives `["lmdb:/a", "inline:{ {k = v}, x=y }"]`:
separators inside braces do not separate.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LIST_SEPARATORS", "split_list", "strip_braces"]

LIST_SEPARATORS: Final = ", \t\r\n"
_BLANKS: Final = " \t\r\n"


def split_list(text: str, separators: str = LIST_SEPARATORS) -> list[str]:
    """Split at separators outside of braces.  Braces stay part of the items."""
    items: list[str] = []
    start, depth = -1, 0
    for at, char in enumerate(text):
        if depth == 0 and char in separators:
            if start >= 0:
                items.append(text[start:at])
            start = -1
            continue
        if start < 0:
            start = at
        if char == "{":
            depth += 1
        elif char == "}" and depth > 0:
            depth -= 1
    if start >= 0:
        items.append(text[start:])
    return items


def strip_braces(text: str) -> str:
    """Return what is inside of `{ ... }`, without white space around it.

    Raises ValueError with the words of the log when the text has another form.
    """
    if not text.startswith("{"):
        raise ValueError(f"no '{{' at start of text in \"{text}\"")
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            if text[at + 1 :].strip(_BLANKS):
                raise ValueError(f"syntax error after '}}' in \"{text}\"")
            return text[1:at].strip(_BLANKS)
    raise ValueError(f"missing '}}' in \"{text}\"")
