"""A bounded cache whose entries live for a time: for networked tables, DNS and host names."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["ExpiringCache"]

K = TypeVar("K")
V = TypeVar("V")


class ExpiringCache(Generic[K, V]):
    """Holds at most `size` entries; a full cache drops the one that was used longest ago."""

    def __init__(self, size: int, life: float, clock: Callable[[], float] = time.monotonic) -> None:
        """life: seconds that an entry may be used, unless `put` says less."""
        self._size = size
        self._life = life
        self._clock = clock
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        """Count the entries, also those that ran out and were not asked for since."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return what was put, or None where it is not there or its time is over."""
        entry = self._entries.get(key)
        if entry is not None and self._clock() < entry[0]:
            self._entries.move_to_end(key)
            return entry[1]
        self._entries.pop(key, None)
        return None

    def put(self, key: K, value: V, life: float | None = None) -> None:
        """Keep a value for `life` seconds, at most the cache's own life."""
        seconds = self._life if life is None else min(life, self._life)
        if seconds <= 0 or self._size <= 0:
            return
        self._entries[key] = (self._clock() + seconds, value)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
