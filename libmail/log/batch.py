"""Log lines on their way to postlogd(8), many in one datagram.

A daemon that logs several lines for each message would spend a good part of its time on sending
them one by one. It keeps them for `HOLD` seconds at most, each with the time at which it was
logged; postlogd sorts what comes from all processes by that time before it writes. So lines that
follow from each other stay in their order, whoever logs them.

A batch begins with the octet 1; each line has its time in front, in nanoseconds since the epoch
as 19 digits. Any other datagram is a single line.
"""

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["HOLD", "Line", "decode_datagram", "encode_batch"]

HOLD: Final = 0.02
_MARK: Final = b"\x01"
_DIGITS: Final = 19


class Line(NamedTuple):
    """One log line. stamp: nanoseconds since the epoch; data: with its newline."""

    stamp: int
    data: bytes


def encode_batch(lines: Iterable[tuple[int, str]]) -> bytes:
    """One datagram. lines: time stamps and lines without newline."""
    text = "".join([f"{stamp:019d}{line}\n" for stamp, line in lines])
    return _MARK + text.encode("utf-8", "replace")


def _single(data: bytes) -> Line:
    data = data.removesuffix(b"\n")
    if b"\n" in data:
        data = data.replace(b"\n", b"?")
    return Line(time.time_ns(), data + b"\n")


def decode_datagram(data: bytes) -> list[Line]:
    """The lines in a datagram of the mail system, which nobody else may claim to be."""
    if not data.startswith(_MARK):
        return [_single(data)]
    lines = []
    for part in data[1:].splitlines(keepends=True):
        stamp = part[:_DIGITS]
        if stamp.isdigit() and len(stamp) == _DIGITS:
            lines.append(Line(int(stamp), part[_DIGITS:]))
        else:
            lines.append(_single(part))
    return lines
