"""Whether a queue file is whole, and the one that its name says.

A file that is used again (spare.py) has its blocks on disk already. After a power failure a name
may stand for the file of another message: what was written over it is on disk, and what was
renamed before is not; or for some pages of one and some of another. So the preamble has a
checksum of the queue id and of all that is in the file but for what changes later: the state of
a recipient, and the first octet of the time of the delay notice (`mark_warned`). A file that
does not match was delivered before it was used again, or is of a message that nobody was
promised anything about.

Only a scan needs to look: what cleanup(8) announces has been in the hands of one kernel.
"""

import zlib
from collections.abc import Iterable
from typing import Final

from libmail.queue.envelope import value_offset

__all__ = ["content_checksum"]

_WARN_TIME: Final = "warn_time"


def content_checksum(
    queue_id: str,
    preamble: bytes,
    content: Iterable[bytes],
    attributes: bytes,
    recipients: bytes | bytearray,
) -> int:
    """32 bits, never 0, which stands for no checksum.

    preamble: its octets that are fixed. content: pieces, as they are in the file. recipients: their
    records, all to do.
    """
    check = zlib.crc32(preamble, zlib.crc32(queue_id.encode()))
    for piece in content:
        check = zlib.crc32(piece, check)
    at = value_offset(attributes, _WARN_TIME)
    if at is not None:
        attributes = b"%b-%b" % (attributes[:at], attributes[at + 1 :])
    return zlib.crc32(recipients, zlib.crc32(attributes, check)) or 1
