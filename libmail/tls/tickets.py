"""Keys of session tickets (RFC 5077, RFC 8446 §4.6.1), shared by all processes of the mail system.

A server gives its clients tickets: their session, encrypted with a key that only servers know. The
next handshake is then short, at whatever process it happens. tlsmgr(8) makes the keys
(`TicketRotation`) and hands out three: the one before, the present one, and the next one. Each
process keeps them at hand (`TicketKeys`), asks for the next one long before it is needed, and needs
nobody while it shakes hands. As all know a key before the first of them uses it, a ticket that one
process has made can be opened by every other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["TicketKey", "TicketKeys", "TicketRotation"]

NAME_SIZE: Final = 16
CIPHER_KEY_SIZE: Final = 32
MAC_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class TicketKey:
    """One key. It makes tickets in [issues_from, issues_until), and opens them until opens_until.

    Times are seconds since the epoch.
    """

    name: bytes
    cipher_key: bytes = field(repr=False)
    mac_key: bytes = field(repr=False)
    issues_from: float
    issues_until: float
    opens_until: float

    def __post_init__(self) -> None:
        sizes = (len(self.name), len(self.cipher_key), len(self.mac_key))
        if sizes != (NAME_SIZE, CIPHER_KEY_SIZE, MAC_KEY_SIZE):
            raise ValueError(f"ticket key with parts of {sizes} octets")


class TicketKeys:
    """The keys that a process has at hand. Without one it makes no tickets, and all else works."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: seconds since the epoch."""
        self._clock = clock
        self._keys: tuple[TicketKey, ...] = ()

    def replace(self, keys: Sequence[TicketKey]) -> None:
        """Hold these keys from now on."""
        self._keys = tuple(keys)

    def to_issue(self) -> TicketKey | None:
        """The key for a new ticket."""
        now = self._clock()
        fit = (key for key in self._keys if key.issues_from <= now < key.issues_until)
        return next(fit, None)

    def to_open(self, name: bytes) -> TicketKey | None:
        """The key of a ticket that somebody presents."""
        now = self._clock()
        fit = (key for key in self._keys if key.name == name and now < key.opens_until)
        return next(fit, None)


class TicketRotation:
    """Makes keys, each for a period, and forgets those that can open nothing any more."""

    def __init__(self, period: float, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """period: seconds in which a key makes tickets; it opens them for as long again."""
        self._period = period
        self._random = random
        self._keys: list[TicketKey] = []

    def keys(self, now: float) -> tuple[TicketKey, ...]:
        """The one before, if there was one, the present one, and the next one."""
        self._keys = [key for key in self._keys if now < key.opens_until]
        future = [key for key in self._keys if key.issues_from > now + self._period]
        if future or not any(key.issues_from <= now < key.issues_until for key in self._keys):
            self._keys = [self._key(now)]  # the first one, or the clock was set
        while self._keys[-1].issues_from <= now:
            self._keys.append(self._key(self._keys[-1].issues_until))
        return tuple(self._keys)

    def _key(self, start: float) -> TicketKey:
        end = start + self._period
        name, cipher, mac = map(self._random, (NAME_SIZE, CIPHER_KEY_SIZE, MAC_KEY_SIZE))
        return TicketKey(name, cipher, mac, start, end, end + self._period)
