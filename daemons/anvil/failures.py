"""Logins that failed, of addresses and of names: numbers without limits, which nobody is lent."""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["FAILURE", "Failures"]

FAILURE: Final = "authfail"
_MOST: Final = 100_000


class _Count:
    """Failures until `end`."""

    __slots__ = ("end", "number")

    def __init__(self, end: float) -> None:
        self.end = end
        self.number = 0


class Failures:
    """Counts per address or name, in a unit of time that begins with the first failure."""

    def __init__(
        self, unit: float, clock: Callable[[], float] = time.monotonic, most: int = _MOST
    ) -> None:
        """unit: seconds. most: what more of them do is their first failure."""
        self._unit = unit
        self._clock = clock
        self._most = most
        self._counts: dict[str, _Count] = {}

    def count(self, ident: str) -> int:
        """One failure more; how many there are."""
        now = self._clock()
        found = self._counts.get(ident)
        if found is not None and now >= found.end:
            del self._counts[ident]
            found = None
        if found is None:
            self._forget(now)
            if len(self._counts) >= self._most:
                return 1
            found = self._counts[ident] = _Count(now + self._unit)
        found.number += 1
        return found.number

    def number(self, ident: str) -> int:
        """How many there are."""
        found = self._counts.get(ident)
        return 0 if found is None or self._clock() >= found.end else found.number

    def _forget(self, now: float) -> None:
        """Drop those whose unit is over; they stand in the order of its end."""
        while self._counts:
            ident = next(iter(self._counts))
            if now < self._counts[ident].end:
                break
            del self._counts[ident]
