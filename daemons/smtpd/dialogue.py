"""The stream between a client and its session: octets in, events out; replies in, octets out.

Replies are queued until the session has to wait for the client, so that those to pipelined commands
go out together. A session with much to do yields to the others now and then, see `event`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from libmail.net.channel import Channel, RequestLimit
from libmail.smtp.server import Command, Content, Event, SmtpServerCore

__all__ = ["Dialogue"]

_TURN: Final = 64  # events, or pieces received, after which other sessions have their turn
_TURN_TIME: Final = 0.01  # seconds, likewise
_PIECE: Final = 14  # 1 << _PIECE octets count as a piece


class Dialogue:
    """The dialogue on one connection. core: the parser of what the client sends.

    request_limit: of the connection, where requests are limited as a whole.
    """

    __slots__ = ("_busy_since", "_line_limit", "_out", "_turn", "bindings", "channel", "core",
                 "request_limit")  # fmt: skip

    def __init__(self, channel: Channel, line_limit: int) -> None:
        self.channel = channel
        self.bindings: Callable[[], Mapping[str, bytes]] = dict  # of the channel, within TLS
        self.core = SmtpServerCore(line_limit)
        self.request_limit: RequestLimit | None = None
        self._line_limit = line_limit
        self._out = b""
        self._turn = 0
        self._busy_since = 0.0

    def send(self, data: bytes) -> None:
        """Queue a reply; it is sent before we wait for the client again."""
        self._out += data

    def flush(self) -> None:
        """Send what was queued, in one piece."""
        if self._out:
            data, self._out = self._out, b""
            self.channel.write(data)

    async def event(self, *, idle: bool) -> Event:
        """The next command or piece of content. idle: as for `Channel.read`.

        Raises ClientGone, ClientSilent, ServerStopping.
        """
        core = self.core
        while (event := core.next_event()) is None:
            self.flush()
            data = await self.channel.read(idle=idle)
            core.receive_data(data)
            self._turn += len(data) >> _PIECE
            self._busy_since = time.monotonic()
        if self.request_limit is not None:
            _account(self.request_limit, event)
        self._turn += 1
        if not self._turn & 7 or self._turn >= _TURN:
            await self._take_turns()
        return event

    async def response(self, limit: int) -> Command:
        """The next line, which is not a command, as in AUTH. limit: octets. Raises as `event`."""
        self.core.limit_lines(limit)
        try:
            event = await self.event(idle=True)
        finally:
            self.core.limit_lines(self._line_limit)
        if not isinstance(event, Command):
            raise AssertionError(event)
        return event

    async def _take_turns(self) -> None:
        if self._turn < _TURN and time.monotonic() - self._busy_since < _TURN_TIME:
            return
        self.flush()
        await self.channel.give_way()
        self._turn = 0
        self._busy_since = time.monotonic()

    async def talks_first(self) -> bool:
        """Whether the client has sent something before the greeting; that is received, too."""
        if self.core.pending:  # it came with the line of a proxy
            return True
        if not self.channel.has_sent():
            return False
        self.core.receive_data(await self.channel.read(idle=True))
        return True

    async def pause(self, seconds: float) -> None:
        """Delay the next reply."""
        self.flush()
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Send the queued replies, and close."""
        self.flush()
        self.channel.close()


def _account(limit: RequestLimit, event: Event) -> None:
    if isinstance(event, Content):
        limit.earn(len(event.data))
    else:
        limit.begin()
