"""Making local input canonical: lines that end in LF or CRLF become wire form. Imports nothing."""

from __future__ import annotations

__all__ = ["LineEndings"]


class LineEndings:
    """Turns local input, with lines that end in LF or CRLF, into wire form, over pieces.

    keep_cr: lines end in LF; a CR before it belongs to the line.
    """

    __slots__ = ("_cr", "_ended", "_keep_cr")

    def __init__(self, *, keep_cr: bool = False) -> None:
        self._cr = False
        self._ended = True
        self._keep_cr = keep_cr

    def feed(self, data: bytes) -> bytes:
        """The next piece in wire form."""
        if self._keep_cr:
            if data:
                self._ended = data.endswith(b"\n")
            return data.replace(b"\n", b"\r\n")
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        if data:
            self._ended = data.endswith(b"\n")
        return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def end(self) -> bytes:
        """What is missing at the end: a held CR, the last CRLF."""
        held = b"\r" if self._cr else b""
        self._cr = False
        return held + b"\r\n" if held or not self._ended else b""
