"""Writes docs/messages.md from the classes of libmail/ipc/messages.py: `make docs`.

The fields and docstrings are those of the classes; the order is that of the source.
"""

from __future__ import annotations

import ast
import inspect
from enum import IntFlag
from pathlib import Path
from typing import Final, get_args, get_origin, get_type_hints

from libmail.ipc import messages

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/messages.md"

HEAD: Final = """\
# Wire messages

Made by `make docs` from `libmail/ipc/messages.py`; do not edit it here. How a message becomes
octets says `libmail/ipc/codec.py`.

"""


def classes() -> list[type]:
    """What the module declares, in its order."""
    tree = ast.parse(inspect.getsource(messages))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return [getattr(messages, name) for name in names]


def elements(declared: list[type]) -> set[object]:
    """Those that are sent only as elements of another message's field."""
    hints = [hint for cls in declared for hint in get_type_hints(cls).values()]
    return {get_args(hint)[0] for hint in hints if get_origin(hint) is tuple}


def type_name(hint: object) -> str:
    """As in the source: "int", "QueueId", "tuple[Recipient, ...]"."""
    if get_origin(hint) is tuple:
        return f"tuple[{type_name(get_args(hint)[0])}, ...]"
    return str(getattr(hint, "__name__", hint))


def fields(cls: type) -> list[str]:
    """A table of a message's fields."""
    names: tuple[str, ...] = getattr(cls, "_fields", ())
    if not names:
        return ["No fields.", ""]
    hints = get_type_hints(cls)
    defaults: dict[str, object] = getattr(cls, "_field_defaults", {})
    lines = ["| field | type | default |", "|---|---|---|"]
    for name in names:
        default = f"`{defaults[name]!r}`" if name in defaults else ""
        lines.append(f"| `{name}` | {type_name(hints[name])} | {default} |".replace("|  |", "| |"))
    return [*lines, ""]


def bits(cls: type[IntFlag]) -> list[str]:
    """A table of a set of flags."""
    lines = ["| bit | value |", "|---|---|"]
    return [*lines, *(f"| `{bit.name}` | {bit.value} |" for bit in cls), ""]


def section(cls: type, *, element: bool) -> list[str]:
    """One class."""
    lines = [f"## {cls.__name__}", "", inspect.cleandoc(cls.__doc__ or ""), ""]
    if issubclass(cls, IntFlag):
        return [*lines, *bits(cls)]
    if element:
        lines += ["An element of messages, not sent by itself.", ""]
    return [*lines, *fields(cls)]


def render() -> str:
    """The page."""
    lines = [inspect.cleandoc(messages.__doc__ or ""), ""]
    declared = classes()
    inner = elements(declared)
    for cls in declared:
        lines += section(cls, element=cls in inner)
    return HEAD + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
