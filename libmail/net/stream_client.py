"""Request and reply over a byte stream: for the tables tcp, socketmap and memcache.

Each connection carries one request at a time. It is kept for some seconds, and replaced once if it
turns out to be closed. In a program without an event loop the table has one of its own, so that
nothing suspends (`libmail.tables.table.run_now`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar, cast

__all__ = ["LinkError", "NotConnected", "Opener", "Parse", "StreamClient"]

_CONNECTIONS: Final = 20
_WAITING: Final = 1000

R = TypeVar("R")
P = TypeVar("P", bound=asyncio.Protocol)

Parse = Callable[[bytes], tuple[R, int] | None]
"""Takes what has come so far; returns an answer and its length, or None where some is missing.

Raises LinkError for what cannot become an answer, also for too much of it.
"""


class LinkError(Exception):
    """The server gave no answer; the text says why, without naming it."""


class NotConnected(LinkError):
    """There was no connection to the server."""


class Opener(Protocol):
    """Connects to the server: `libmail.net.endpoint.EndpointOpener`."""

    async def connect(self, factory: Callable[[], P]) -> P:
        """A new connection for the protocol that `factory` makes. Raises OSError."""


class _Link(asyncio.Protocol, Generic[R]):
    """One connection. Unrequested input from the server closes it."""

    def __init__(self, parse: Parse[R], loop: asyncio.AbstractEventLoop) -> None:
        self.born = loop.time()
        self.timer: asyncio.TimerHandle | None = None  # closes it when it is idle
        self._parse = parse
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[R] | None = None
        self._data = b""

    @property
    def usable(self) -> bool:
        """Whether another question may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        answer = self._answer
        if answer is None or answer.done():
            self.close()
            return
        self._data += data
        try:
            found = self._parse(self._data)
        except LinkError as error:
            self.close()
            answer.set_exception(error)
            return
        if found is None:
            return
        if found[1] < len(self._data):
            self.close()  # more than the answer: nobody knows what it belongs to
        answer.set_result(found[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError(0, "unexpected disconnect"))

    async def ask(self, question: bytes) -> R:
        """One exchange. Raises OSError for a lost connection; LinkError."""
        if self._transport is None:
            raise ConnectionResetError(0, "unexpected disconnect")
        self._data = b""
        self._answer = self._loop.create_future()
        self._transport.write(question)
        return await self._answer

    def close(self) -> None:
        """Close at once."""
        if self.timer is not None:
            self.timer.cancel()
        if self._transport is not None:
            self._transport.abort()


def _reason(error: OSError) -> str:
    """The text of the error number, without what asyncio adds to it."""
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)


@dataclass(slots=True)
class _Loop(Generic[R]):
    """What belongs to one event loop. places: for connections."""

    loop: asyncio.AbstractEventLoop
    places: asyncio.Semaphore
    idle: list[_Link[R]] = field(default_factory=list)
    waiting: int = 0


class StreamClient(Generic[R]):
    """Asks one server; at most so many questions at a time, and so many that wait."""

    def __init__(
        self,
        opener: Opener,
        parse: Parse[R],
        *,
        timeout: float,
        idle: float = 10.0,
        life: float = 100.0,
        tries: int = 1,
        pause: float = 0.0,
    ) -> None:
        """timeout: for connection, question and answer together.

        idle, life: how long a connection is kept. tries: how often a question is asked that gets
        no answer, but not for want of a connection. pause: before each time but the first one.
        All times in seconds.
        """
        self._opener = opener
        self._parse = parse
        self._timeout = timeout
        self._idle = idle
        self._life = life
        self._tries = tries
        self._pause = pause
        self._here: _Loop[R] | None = None
        self._own: asyncio.AbstractEventLoop | None = None

    async def ask(self, question: bytes) -> R:
        """Send a question, return the answer. Raises LinkError."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            own = self._own = self._own or asyncio.new_event_loop()
            return own.run_until_complete(self._ask(own, question))
        return await self._ask(loop, question)

    async def _ask(self, loop: asyncio.AbstractEventLoop, question: bytes) -> R:
        here = self._here
        if here is None or here.loop is not loop:
            here = self._here = _Loop(loop, asyncio.Semaphore(_CONNECTIONS))
        if here.waiting >= _WAITING:
            raise LinkError("too many lookups are waiting")
        here.waiting += 1
        try:
            for _ in range(self._tries - 1):
                try:
                    return await self._try(here, question)
                except NotConnected:
                    raise
                except LinkError:
                    await asyncio.sleep(self._pause)
            return await self._try(here, question)
        finally:
            here.waiting -= 1

    async def _try(self, here: _Loop[R], question: bytes) -> R:
        try:
            async with asyncio.timeout(self._timeout), here.places:
                return await self._exchange(here, question)
        except TimeoutError:
            raise LinkError("Connection timed out") from None

    async def _exchange(self, here: _Loop[R], question: bytes) -> R:
        link = self._kept(here)
        if link is not None:
            try:
                return await self._over(here, link, question)
            except OSError:
                pass  # closed while nobody looked
        link = await self._connected(here)
        try:
            return await self._over(here, link, question)
        except OSError as error:
            raise LinkError(_reason(error)) from None

    async def _connected(self, here: _Loop[R]) -> _Link[R]:
        try:
            return await self._opener.connect(lambda: _Link(self._parse, here.loop))
        except OSError as error:
            raise NotConnected(_reason(error)) from None

    def _kept(self, here: _Loop[R]) -> _Link[R] | None:
        while here.idle:
            link = here.idle.pop()
            if link.timer is not None:
                link.timer.cancel()
            if link.usable:
                return link
        return None

    async def _over(self, here: _Loop[R], link: _Link[R], question: bytes) -> R:
        try:
            answer = await link.ask(question)
        except BaseException:
            link.close()  # a late answer would be taken for that of the next request
            raise
        if not link.usable or here.loop.time() - link.born > self._life:
            link.close()
        else:
            link.timer = here.loop.call_later(self._idle, self._expire, here, link)
            here.idle.append(link)
        return answer

    def _expire(self, here: _Loop[R], link: _Link[R]) -> None:
        here.idle.remove(link)
        link.close()

    def close(self) -> None:
        """Close what is idle."""
        if self._here is not None:
            for link in self._here.idle:
                link.close()
            self._here = None
        if self._own is not None:
            self._own.run_until_complete(asyncio.sleep(0))  # lets transports close
            self._own.close()
            self._own = None
