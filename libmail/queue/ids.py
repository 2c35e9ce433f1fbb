"""Queue ids: unique names without locks, from the clock and the inode of the queue file.

Short form: microseconds (five hexadecimal digits), then the inode number in hexadecimal. Long form
(`enable_long_queue_ids`, postconf(5)): seconds (six or more digits of base 52), microseconds (four
digits of base 52), "z", the inode number in base 51. The base 52 digits are 0-9, then the upper
and lower case consonants in ASCII order, so that long ids sort by time; base 51 leaves out the "z".
"""

import re
from typing import Final

from libmail.ipc.messages import QueueId

__all__ = ["is_queue_id", "make_queue_id", "microseconds_of"]

_DIGITS: Final = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_VALUE: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_SHORT: Final = re.compile(r"[0-9A-F]{6,25}")
_LONG: Final = re.compile(rf"[{_DIGITS}]{{10,16}}z[{_DIGITS[:51]}]{{1,14}}")


def _base(number: int, base: int, width: int) -> str:
    digits = ""
    while number or len(digits) < width:
        number, digit = divmod(number, base)
        digits = _DIGITS[digit] + digits
    return digits


def make_queue_id(seconds: int, microseconds: int, inode: int, *, long: bool) -> QueueId:
    """The id of a queue file created at this time (of the epoch) that has this inode."""
    if not long:
        return QueueId(f"{microseconds:05X}{inode:X}")
    return QueueId(
        f"{_base(seconds, 52, 6)}{_base(microseconds, 52, 4)}z{_base(inode, 51, 1)}",
    )


def is_queue_id(text: str) -> bool:
    """Whether `text`, from anywhere, may be used as the name of a queue file."""
    return _SHORT.fullmatch(text) is not None or _LONG.fullmatch(text) is not None


def microseconds_of(queue_id: QueueId) -> str:
    """Five hexadecimal digits of the creation time, which spread evenly over hashed directories."""
    if "z" not in queue_id:
        return queue_id[:5]
    head = queue_id.rpartition("z")[0]  # base 51 has no "z"
    value = 0
    for digit in head[-4:]:
        value = value * 52 + _VALUE[digit]
    return f"{value:05X}"
