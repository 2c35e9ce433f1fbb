"""Macros: information about a session or message that goes with an event. The format only.

Values come from libmail.clients.milters, and from the daemons.

A list of names stands in milter_*_macros (`i {mail_addr} v`); a Milter may ask for another list in
the negotiation. Names of more than one letter go over the wire with braces. A macro without a value
is left out; the null sender is one.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from libmail.milter.protocol import strings

__all__ = ["encode_macros", "macro_names", "parse_defaults"]

Name: TypeAlias = tuple[str, str]
"""The name of a macro, and what it is called on the wire."""

_SEPARATORS: Final = str.maketrans(dict.fromkeys(",\t\r\n\v\f", " "))


@lru_cache(64)
def macro_names(text: str) -> tuple[Name, ...]:
    """The names of a list, in their order."""
    words = text.translate(_SEPARATORS).split()
    names = [word[1:-1] if word[0] + word[-1] == "{}" else word for word in words]
    return tuple((name, name if len(name) == 1 else "{" + name + "}") for name in names)


def encode_macros(
    names: Iterable[Name], known: Callable[[str], str | None], configured: Mapping[str, str]
) -> bytes:
    """Names and values for the packet.

    known: the value of a name, None for none. configured: values of names that have none.
    """
    found: list[str] = []
    for name, called in names:
        value = known(name)
        if value is None:
            value = configured.get(name)
        if value is not None:
            found += called, value
    return strings(*found)


def parse_defaults(elements: Iterable[str]) -> dict[str, str]:
    """milter_macro_defaults: `name=value` or `{ name = value }`, names with or without braces.

    Raises ValueError with the complaint.
    """
    defaults: dict[str, str] = {}
    for element in elements:
        text = element
        if text.startswith("{") and text.endswith("}") and "=" in text:
            text = text[1:-1]
        name, equals, setting = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise ValueError(f"malformed milter_macro_defaults entry: {element}")
        defaults[macro_names(name)[0][0]] = setting
    return defaults
