"""Keys of session tickets (RFC 5077, RFC 8446 §4.6.1), shared by all processes of a service.

A server gives its clients tickets: their session, encrypted with a key that only servers know. The
next handshake is then short, at whatever process it happens. tlsmgr(8) makes the keys and changes
them; each process holds the present one and the one before, and needs nobody while it shakes hands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["CIPHER_KEY_SIZE", "MAC_KEY_SIZE", "NAME_SIZE", "TicketKey", "TicketKeys"]

NAME_SIZE: Final = 16
CIPHER_KEY_SIZE: Final = 32
MAC_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class TicketKey:
    """One key. Times are seconds since the epoch: when it stops to make and to open tickets."""

    name: bytes
    cipher_key: bytes = field(repr=False)
    mac_key: bytes = field(repr=False)
    issues_until: float
    opens_until: float

    def __post_init__(self) -> None:
        sizes = (len(self.name), len(self.cipher_key), len(self.mac_key))
        if sizes != (NAME_SIZE, CIPHER_KEY_SIZE, MAC_KEY_SIZE):
            raise ValueError(f"ticket key parts of {sizes} octets")


class TicketKeys:
    """The keys that a process has at hand. Without one it makes no tickets, and all else works."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: seconds since the epoch."""
        self._clock = clock
        self._keys: tuple[TicketKey, ...] = ()

    def replace(self, keys: Sequence[TicketKey]) -> None:
        """Hold these keys from now on, the newest first."""
        self._keys = tuple(keys)

    def to_issue(self) -> TicketKey | None:
        """The key for a new ticket."""
        now = self._clock()
        return next((key for key in self._keys if now < key.issues_until), None)

    def to_open(self, name: bytes) -> TicketKey | None:
        """The key of a ticket that somebody presents."""
        now = self._clock()
        found = (key for key in self._keys if key.name == name and now < key.opens_until)
        return next(found, None)
