"""One connection of a process to a service, for all that it asks: questions have numbers.

A pool (`libmail.service.pool`) has a connection for each question that is under way. Where answers
take long, and thousands of sessions may wait for some, one connection serves them all, and answers
come in any order. What a question is owed is called at once with its answer, before anything that
came behind it is looked at.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, cast

from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import CODEC, Leaving
from libmail.log import LOG
from libmail.net.unix_stream import connect_unix

__all__ = ["Link", "Numbered", "open_link"]

_QUEUE_FULL: Final = 0.1  # seconds until it is tried again


class Numbered(Protocol):
    """A message that answers the question with that number."""

    @property
    def number(self) -> int:
        """Of the question."""


A = TypeVar("A", bound=Numbered)
Other: TypeAlias = Callable[[object], bool]
"""Takes a message that is no answer. False: it is not expected."""


class Link(asyncio.Protocol, Generic[A]):
    """A connection. kind: of answers. lost: called when nothing more can be asked here; until it
    returns messages can still be sent to a service that leaves."""

    def __init__(
        self, name: str, kind: type[A], other: Other, lost: Callable[["Link[A]"], None]
    ) -> None:
        """name: of the service, for the log."""
        self._name = name
        self._kind = kind
        self._other = other
        self._lost = lost
        self._unframer = Unframer(CODEC)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, Callable[[A | None], None]] = {}
        self.leaving = False  # the service wants no more questions

    @property
    def usable(self) -> bool:
        """Whether something can be asked."""
        return self._transport is not None and not self.leaving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._unframer.receive_data(data)
        try:
            for message in self._unframer:
                self._take(message)
        except WireError as error:
            LOG.warning(f"{self._name}: {error}")
            self.close()

    def _take(self, message: object) -> None:
        if isinstance(message, self._kind):
            owed = self._waiting.pop(message.number, None)
            if owed is not None:
                owed(message)
        elif isinstance(message, Leaving):
            if not self.leaving:
                self._lost(self)
            self.leaving = True
        elif not self._other(message):
            raise WireError(f"unexpected {type(message).__name__}")
        if self.leaving and not self._waiting and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if not self.leaving:
            self._lost(self)
        waiting, self._waiting = self._waiting, {}
        for owed in waiting.values():
            owed(None)

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def send(self, data: bytes) -> None:
        """Send messages that have no answer."""
        if self._transport is not None:
            self._transport.write(data)

    def ask(self, number: int, data: bytes, owed: Callable[[A | None], None]) -> None:
        """Send a question. owed: gets its answer, None if the connection is lost."""
        self._waiting[number] = owed
        self.send(data)


async def open_link(path: str, link: Link[A], patience: float) -> None:
    """Connect to the service; a service whose queue is full is waited for.

    patience: seconds. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            connect_unix(path, link)
        except BlockingIOError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(_QUEUE_FULL)
        else:
            return
