"""The content of a message on its way from the client to cleanup(8), or to a filter.

    AWAITED    not enough has come to know how it begins
    TAKEN      cleanup has the envelope and our header, and gets the content as it comes
    TOO_LARGE  the rest is received and forgotten
    LOST       cleanup cannot be reached any more; the same

Problems are told at the end, when the client listens.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from libmail.clients.milter import HandedOver
from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.log import LOG
from libmail.message.first_lines import mend_first_lines
from libmail.service.pool import ServiceUnavailable

__all__ = ["Head", "Intake", "Stage", "Taker"]

_RECEIVED: Final = 1000  # octets, more than the header that we put in front of a message


class Stage(Enum):
    """The state of the content of a message."""

    AWAITED = auto()
    TAKEN = auto()
    TOO_LARGE = auto()
    LOST = auto()


class Head(NamedTuple):
    """What goes in front of the content. header: ours, in wire form. milters: that see it all."""

    envelope: Envelope
    recipients: list[Recipient]
    header: bytes
    milters: Sequence[HandedOver] = ()


class Taker(Protocol):
    """Who gets the content: cleanup(8), or a filter."""

    queue_id: QueueId

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The envelope, before the content."""

    def milters(self, states: Sequence[HandedOver]) -> None:
        """Milters that are to see the content, before it. Raises ServiceUnavailable."""

    async def write(self, data: bytes) -> None:
        """Append to the content. Raises ServiceUnavailable."""


class Intake:
    """The content of one message. size: octets so far; lines: octets in complete lines."""

    __slots__ = ("_head", "_held", "_limit", "_taker", "lines", "size", "stage")

    def __init__(self, taker: Taker, limit: int, head: Callable[[], Awaitable[Head]]) -> None:
        """limit: message_size_limit, 0 for none."""
        self._taker = taker
        self._limit = limit
        self._head = head
        self._held = b""  # content that is not enough to begin with
        self.stage = Stage.AWAITED
        self.size = 0
        self.lines = 0

    async def take(self, content: bytes) -> None:
        """Take a piece of content."""
        end = content.rfind(b"\n")
        if end >= 0:
            self.lines = self.size + end + 1
        self.size += len(content)
        if self.stage is Stage.TOO_LARGE or self.stage is Stage.LOST:
            return
        if not self._limit or self.size <= self._limit:
            await self._write(content)
            return
        LOG.warning(f"{self._taker.queue_id or 'NOQUEUE'}: queue file size limit exceeded")
        # cleanup logs the Message-Id, if the header was not larger already.
        written = await self._write(content[: self._limit - self.size - _RECEIVED])
        self.stage = Stage.TOO_LARGE if written else Stage.LOST

    async def end(self) -> Stage:
        """The content is complete. Returns TAKEN, or why it cannot be accepted."""
        if self.stage is Stage.AWAITED:
            await self._write(b"", complete=True)
        return self.stage

    async def _write(self, content: bytes, *, complete: bool = False) -> bool:
        """False: cleanup cannot be reached."""
        taker = self._taker
        try:
            if self.stage is Stage.AWAITED:
                content = self._held + content
                mended = mend_first_lines(content, complete=complete)
                if mended is None:
                    self._held = content
                    return True
                head = await self._head()
                taker.envelope(head.envelope, head.recipients)
                if head.milters:
                    taker.milters(head.milters)
                self._held = b""
                self.stage = Stage.TAKEN
                content = head.header + mended
            await taker.write(content)
        except ServiceUnavailable as err:
            LOG.warning(f"{taker.queue_id}: {err}")
            self.stage = Stage.LOST
            return False
        return True
