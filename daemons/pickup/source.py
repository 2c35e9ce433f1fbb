"""A file of the maildrop directory as a submission, whichever sendmail has left it.

Ours writes queue files like all others. Files of the original's format come from its postdrop(1),
which may be installed beside us, or have been at work until a moment ago.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, NamedTuple

from libmail.ipc.messages import Envelope, EnvelopeFlag, Recipient
from libmail.queue.file import Extent, QueueFile, QueueFileCorrupt
from libmail.queue.foreign_message import ForeignMessage

__all__ = ["Source", "Unsuitable", "read_source"]

_ENVELOPE_ROOM: Final = 1 << 26  # octets of a file that are not content
_PIECE: Final = 1 << 18
_ORIGINAL: Final = (b"C", b"T")  # how a file of the original begins


class Unsuitable(Exception):
    """The file cannot become mail; the text says why."""


class Source(NamedTuple):
    """What a file says. requeued: if its owner is the mail system, postsuper -r has moved it.

    content: to be called while the file is open.
    """

    envelope: Envelope
    recipients: list[Recipient]
    content: Callable[[], AsyncIterator[bytes]]
    requeued: bool


async def read_source(path: str, fd: int, limits: tuple[int, int], name: str) -> Source:
    """All but the content. fd: the open file, which stays open; limits: octets of the content (0
    for none), recipients. Raises Unsuitable, QueueFileCorrupt, ForeignFileError, OSError.
    """
    if os.pread(fd, 1, 0) in _ORIGINAL:
        return await _original(fd, limits, name)
    with QueueFile(path, fd=os.dup(fd)) as file:
        envelope, recipients = _ours(file, limits)
        extents = (file.preamble.header, file.preamble.body)
    return Source(envelope, recipients, lambda: _content(fd, extents), bool(envelope.message_id))


def _ours(file: QueueFile, limits: tuple[int, int]) -> tuple[Envelope, list[Recipient]]:
    limit, most = limits
    size = file.preamble.size
    _check_size(size, limit)
    if os.fstat(file.fd).st_size > size + _ENVELOPE_ROOM:
        raise Unsuitable("too much besides the message")
    recipients: list[Recipient] = []
    for recipient in file.recipients():
        if len(recipients) == most:
            raise Unsuitable("too many recipients")
        recipients.append(recipient._replace(offset=0))
    return file.envelope(), recipients


def _check_size(size: int, limit: int) -> None:
    if limit and size > limit:
        raise Unsuitable(f"message file too big: {size} octets, limit {limit}")


async def _content(fd: int, extents: Iterable[Extent]) -> AsyncIterator[bytes]:
    for extent in extents:
        at = extent.offset
        while at < extent.end:
            piece = os.pread(fd, min(_PIECE, extent.end - at), at)
            if not piece:
                raise QueueFileCorrupt("unexpected end of file")
            yield piece
            at += len(piece)


async def _original(fd: int, limits: tuple[int, int], name: str) -> Source:
    """The recipients may stand behind the content, so the file is read twice."""
    limit, most = limits

    def begin() -> ForeignMessage:
        message = ForeignMessage(
            lambda offset, size: os.pread(fd, size, offset), os.fstat(fd).st_size, name
        )
        message.head()
        return message

    async def content() -> AsyncIterator[bytes]:
        for piece in begin().content():
            yield piece

    message, size = begin(), 0
    for piece in message.content():
        size += len(piece)
        _check_size(size, limit)
        await asyncio.sleep(0)
    envelope = message.finish("")
    if envelope.rewrite_context != "local":
        envelope = envelope._replace(flags=envelope.flags | EnvelopeFlag.RELAYED)
    recipients = [one.recipient._replace(offset=0) for one in message.recipients if not one.done]
    if len(recipients) > most:
        raise Unsuitable("too many recipients")
    return Source(envelope, recipients, content, requeued=True)
