"""Changes of a message header that Milters ask for.

The fields that this system has put at the top itself are not shown to Milters, and do not count
where one of a name is changed. What Milters put there, the next ones see. Whatever is asked for,
the result is a header again: line ends in a value become continuation lines, and neither NUL nor CR
gets in.

A stranger may send millions of fields. So the header stays one piece of memory, which each change
searches once; a list of its fields would be a hundred times as large, and take seconds to make.
"""

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["HeaderFields", "header_field"]

_LINE_END: Final = re.compile(rb"\n(?![ \t])")


class HeaderFields:
    """The fields of one header, wire form, to be edited."""

    __slots__ = ("_data", "_own")

    def __init__(self, header: bytes | bytearray, own: bytes = b"") -> None:
        """header: fields only, each with its CRLF. own: the text of the field to hide, if any."""
        self._data = bytearray(header)
        at = (b"\n" + header).find(b"\n" + own) if own else -1
        self._own = (at, at + len(own)) if at >= 0 else (0, 0)  # where that is

    def copy(self) -> "HeaderFields":
        """The same, to come back to."""
        other = HeaderFields(self._data)
        other._own = self._own
        return other

    def shown(self) -> Iterator[tuple[bytes, bytes]]:
        """The fields that Milters see, as they are now: name, and what is behind the colon.

        Lines of a value end in LF, as Sendmail has it.
        """
        first, last = self._own
        for start, end in ((0, first), (last, len(self._data))):
            data, at = bytes(self._data[start:end].replace(b"\r\n", b"\n")), 0
            for found in _LINE_END.finditer(data):
                end_of_field = found.end()
                name, _, value = data[at : end_of_field - 1].partition(b":")
                yield name.rstrip(), value
                at = end_of_field

    def data(self) -> bytes:
        """The header as it is now."""
        return bytes(self._data)

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field. value: with its leading space."""
        self._data += header_field(name, value)

    def insert(self, index: int, name: bytes, value: bytes) -> None:
        """Insert before the index-th field (from 0); behind the last one if there are fewer.

        Here our own fields count, as in Sendmail: 0 is the very top.
        """
        at = 0
        while index > 0 and at < len(self._data):
            at = self._end_of_field(at)
            index -= 1
        self._replace(at, at, header_field(name, value))

    def change(self, index: int, name: bytes, value: bytes, new_name: bytes = b"") -> None:
        """Replace the index-th field (from 1) of that name; without a value remove it.

        One that does not exist is added. new_name: what the field is called then.
        """
        start = self._find(index, name)
        part = header_field(new_name or name, value) if value else b""
        if start is None:
            self._data += part
        else:
            self._replace(start, self._end_of_field(start), part)

    def _replace(self, start: int, end: int, part: bytes) -> None:
        first, last = self._own
        if start <= first:
            moved = len(part) - (end - start)
            self._own = first + moved, last + moved
        self._data[start:end] = part

    def _find(self, index: int, name: bytes) -> int | None:
        """Where a field begins."""
        begins = re.compile(rb"(?im)^%b[ \t]*:" % re.escape(name))
        at = self._behind_own(0)
        while (found := begins.search(self._data, at)) is not None:
            start = self._behind_own(found.start())
            if start == found.start():
                index -= 1
                if index <= 0:
                    return start
                start = self._end_of_field(start)
            at = start
        return None

    def _behind_own(self, start: int) -> int:
        """The place of the field that is there, or behind those that are hidden."""
        first, last = self._own
        return last if first <= start < last else start

    def _end_of_field(self, start: int) -> int:
        """Where the field that begins there ends; the end of the header for none."""
        end = _LINE_END.search(self._data, start)
        return len(self._data) if end is None else end.end()


def header_field(name: bytes, value: bytes) -> bytes:
    """A field in wire form, whatever is in the value. value: with its leading space."""
    text = value.replace(b"\0", b"").replace(b"\r", b"")
    if b"\n" in text:
        text = _LINE_END.sub(b"\n\t", text).replace(b"\n", b"\r\n")
    return name + b":" + text + b"\r\n"
