"""The time limits of the channels of a process: looked at once a second, for all of them."""

import asyncio
from typing import Final

from libmail.net.channel import ClientChannel

__all__ = ["ChannelWatch"]

_TICK: Final = 1.0  # seconds between looks


class ChannelWatch:
    """The channels that are open. A timer runs only while there are some."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._channels: set[ClientChannel] = set()
        self._ticking = False

    def add(self, channel: ClientChannel) -> None:
        """Look at its time limit from now on."""
        self._channels.add(channel)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(_TICK, self._tick)

    def discard(self, channel: ClientChannel) -> None:
        """It is closed."""
        self._channels.discard(channel)

    def stop(self) -> None:
        """The system stops: end the sessions that wait for their clients."""
        for channel in list(self._channels):
            channel.stop()

    def _tick(self) -> None:
        now = self._loop.time()
        for channel in list(self._channels):
            channel.check_deadline(now)
        self._ticking = bool(self._channels)
        if self._ticking:
            self._loop.call_later(_TICK, self._tick)
