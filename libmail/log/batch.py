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
from typing import Final

__all__ = ["HOLD", "STAMP", "decode_datagram", "encode_batch", "stamp_of", "stamped"]

HOLD: Final = 0.01
STAMP: Final = 19
"""Octets of the time in front of a line; so lines are in the order in which they were logged."""
_MARK: Final = b"\x01"


def stamp_of(nanoseconds: int) -> bytes:
    """The time that stands in front of a line, as octets that sort as times do."""
    return b"%0*d" % (STAMP, nanoseconds)


def encode_batch(lines: Iterable[tuple[int, str]]) -> bytes:
    """One datagram. lines: time stamps and lines without newline."""
    text = "".join([f"{stamp:019d}{line}\n" for stamp, line in lines])
    return _MARK + text.encode("utf-8", "replace")


def stamped(data: bytes) -> bytes:
    """One line, with the time in front that it is now."""
    data = data.removesuffix(b"\n")
    if b"\n" in data:
        data = data.replace(b"\n", b"?")
    return stamp_of(time.time_ns()) + data + b"\n"


def decode_datagram(data: bytes) -> list[bytes]:
    """The lines in a datagram of the mail system, which nobody else may claim to be.

    Each has its time in front, `STAMP` octets.
    """
    if not data.startswith(_MARK):
        return [stamped(data)]
    return [
        line if line[:STAMP].isdigit() and len(line) > STAMP else stamped(line)
        for line in data[1:].splitlines(keepends=True)
    ]
