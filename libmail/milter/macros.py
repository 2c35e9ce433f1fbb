"""Macros: information about a session or message that goes with an event. The format only.

Values come from libmail.clients.milters, and from the daemons.

A list of names stands in milter_*_macros (`i {mail_addr} v`); a Milter may ask for another list in
the negotiation. Names of more than one letter go over the wire with braces. A macro without a value
is left out; the null sender is one.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final

from libmail.milter.protocol import strings

__all__ = ["encode_macros", "macro_names", "parse_defaults"]

_SEPARATORS: Final = str.maketrans(dict.fromkeys(",\t\r\n\v\f", " "))


@lru_cache(64)
def macro_names(text: str) -> tuple[str, ...]:
    """Names without braces, in their order."""
    words = text.translate(_SEPARATORS).split()
    return tuple(word[1:-1] if word[0] + word[-1] == "{}" else word for word in words)


def encode_macros(
    names: Iterable[str], known: Callable[[str], str | None], configured: Mapping[str, str]
) -> bytes:
    """Names and values for the packet.

    known: the value of a name, None for none. configured: values of names that have none.
    """
    parts: list[str] = []
    for name in names:
        value = known(name)
        if value is None and (value := configured.get(name)) is None:
            continue
        parts += (name if len(name) == 1 else "{" + name + "}", value)
    return strings(*parts)


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
        defaults[macro_names(name)[0]] = setting
    return defaults
