"""What scanning message content once tells, and taking stray line ends out of it.

Works on pieces of content as they come, with bytes methods only: no loop over lines.
"""

import re
from typing import Final

from libmail.text.lineends import has_leading_dot, has_stray_line_end

__all__ = ["ContentScan", "StrayFilter"]

_LONGEST: Final = 998  # octets of a line without CRLF, RFC 5321 §4.5.3.1.6
_STRAY: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class ContentScan:
    """Remembers, over pieces of wire form: 8-bit data, long lines, lines that begin with a dot."""

    __slots__ = ("_line", "dots", "eightbit", "long_lines")

    def __init__(self) -> None:
        self.eightbit = False
        self.long_lines = False
        self.dots = False
        self._line = 0  # octets of the last line that has not ended

    def feed(self, data: bytes) -> None:
        """Look at the next piece."""
        if not data:
            return
        if not self.eightbit and not data.isascii():
            self.eightbit = True
        if not self.dots and ((self._line == 0 and data[0] == 0x2E) or has_leading_dot(data)):
            self.dots = True
        if not self.long_lines:
            self.long_lines = self._has_long_line(data)
        last = data.rfind(b"\n")
        self._line = len(data) - last - 1 if last >= 0 else self._line + len(data)

    def _has_long_line(self, data: bytes) -> bool:
        """Goes from line end to a line end at most a full line away, not over all lines."""
        full, size = _LONGEST + 2, len(data)
        if self._line + size < full:
            return False
        reach, find_last = full, data.rfind
        if self._line:
            first = data.find(b"\n", 0, full - self._line)
            if first < 0:
                return True
            reach = first + 1 + full
        while reach <= size:
            found = find_last(b"\n", reach - full, reach)
            if found < 0:
                return True
            reach = found + 1 + full
        return False


class StrayFilter:
    """Replaces carriage returns and line feeds outside of CRLF by spaces, over pieces.

    cleanup_replace_stray_cr_lf: nobody may see a line end where others see none.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""  # a final CR, which may belong to the next piece

    def feed(self, data: bytes) -> bytes:
        """The next piece, clean."""
        if self._held:
            data, self._held = self._held + data, b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return _STRAY.sub(b" ", data) if has_stray_line_end(data) else data

    def end(self) -> bytes:
        """What was held back, clean."""
        held, self._held = self._held, b""
        return b" " if held else b""
