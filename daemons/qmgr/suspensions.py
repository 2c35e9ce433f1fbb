"""Transports and destinations that get no mail for a while: dead ones, and pauses for a rate.

A dead one has failed, and its mail is deferred meanwhile.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Final

from daemons.qmgr.jobs import Destination, Transport, offer

__all__ = ["Suspensions"]


class Suspensions:
    """Times are of the epoch and given by the caller."""

    def __init__(self, *, dead_time: float, retry_time: float, dead_limit: int) -> None:
        """dead_time, retry_time: seconds that a destination (transport) stays dead.

        dead_limit: the most dead destinations that are remembered.
        """
        self._dead_time: Final = dead_time
        self._retry_time: Final = retry_time
        self._dead_limit: Final = dead_limit
        self._dead = 0  # destinations
        self._numbers = count(1)
        # Of what is to end some time: when, and of whom. A heap.
        self.timers: Final[list[tuple[float, int, Destination | Transport]]] = []

    @staticmethod
    def reason(transport: Transport, name: str) -> str:
        """Why nothing is sent to this destination now, "4.x.x reason"; "" if it can be sent."""
        destination = transport.destinations.get(name)
        return transport.reason or (destination.reason if destination is not None else "")

    def declare_dead(self, what: Destination | Transport, reason: str, now: float) -> bool:
        """Returns whether it is dead now: there may be too many dead destinations."""
        if isinstance(what, Destination):
            if self._dead >= self._dead_limit:
                what.window.reset()
                return False
            self._dead += 1
            what.dead_until = now + self._dead_time
        else:
            what.dead_until = now + self._retry_time
        what.reason = reason
        self._wake_at(what.dead_until, what)
        return True

    def pause(self, what: Destination | Transport, seconds: float, now: float) -> None:
        """Nothing begins for so long."""
        what.paused_until = now + seconds
        self._wake_at(what.paused_until, what)

    def _wake_at(self, when: float, what: Destination | Transport) -> None:
        heappush(self.timers, (when, next(self._numbers), what))

    def next_wake(self) -> float | None:
        """When `expire` is to be called next."""
        return self.timers[0][0] if self.timers else None

    def expire(self, now: float) -> set[Transport]:
        """End what was to last until now; returns the transports that may deliver again."""
        changed: set[Transport] = set()
        while self.timers and self.timers[0][0] <= now:
            what = heappop(self.timers)[2]
            if 0 < what.dead_until <= now:
                self.revive(what)
            if 0 < what.paused_until <= now:
                what.paused_until = 0.0
            if isinstance(what, Transport):
                changed.add(what)
            else:
                changed.add(what.transport)
                offer(what)
                what.forget_if_idle()
        return changed

    def revive(self, what: Destination | Transport) -> None:
        """It works again, or is to be tried again."""
        what.dead_until = 0.0
        what.reason = ""
        if isinstance(what, Destination):
            self._dead -= 1
            what.window.reset()

    def revive_all(self, transports: Iterable[Transport]) -> None:
        """Forget what is known of dead transports and destinations."""
        for transport in transports:
            if transport.dead_until:
                self.revive(transport)
            for destination in list(transport.destinations.values()):
                if destination.dead_until:
                    self.revive(destination)
                destination.forget_if_idle()
