"""Changes of a message header that Milters ask for.

The fields at the top that this system has put there itself are not shown to Milters, and do not
count where one of a name is changed. Whatever is asked for, the result is a header again: line ends
in a value become continuation lines, and neither NUL nor CR gets in.
"""

import re
from typing import Final

from libmail.message.headers import fields

__all__ = ["HeaderFields"]

_LINE_END: Final = re.compile(rb"\n(?![ \t])")


class HeaderFields:
    """The fields of one header, wire form, while they are edited."""

    __slots__ = ("_own", "_parts")

    def __init__(self, header: bytes, own: int = 0) -> None:
        """header: fields only, each with its CRLF. own: number of fields at the top to hide."""
        self._parts: list[tuple[bytes, bytes]] = [
            (field.name, header[field.start : field.end]) for field in fields(header)
        ]
        self._own = min(own, len(self._parts))

    def shown(self) -> list[bytes]:
        """The fields that Milters see, wire form."""
        return [data for _, data in self._parts[self._own :]]

    def data(self) -> bytes:
        """The header as it is now."""
        return b"".join([data for _, data in self._parts])

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field. value: with its leading space."""
        self._parts.append(_part(name, value))

    def insert(self, index: int, name: bytes, value: bytes) -> None:
        """Insert before the index-th field (from 0); behind the last one if there are fewer.

        Here our own fields count, as in Sendmail: 0 is the very top.
        """
        if index <= self._own:
            self._own += 1
        self._parts.insert(index, _part(name, value))

    def change(self, index: int, name: bytes, value: bytes) -> None:
        """Replace the index-th field (from 1) of that name; without a value remove it.

        One that does not exist is added.
        """
        position = self._find(index, name.lower())
        if not value.strip():
            if position is not None:
                del self._parts[position]
        elif position is None:
            self.add(name, value)
        else:
            self._parts[position] = _part(name, value)

    def _find(self, index: int, name: bytes) -> int | None:
        for position in range(self._own, len(self._parts)):
            if self._parts[position][0] == name:
                index -= 1
                if index <= 0:
                    return position
        return None


def _part(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    text = value.replace(b"\0", b"").replace(b"\r", b"").rstrip(b"\n")
    if b"\n" in text:
        text = _LINE_END.sub(b"\n\t", text).replace(b"\n", b"\r\n")
    return name.lower(), name + b":" + text + b"\r\n"
