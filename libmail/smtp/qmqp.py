"""QMQP, <https://cr.yp.to/proto/qmqp.html>: a message in one packet, and the answer to it.

A packet is a netstring that consists of netstrings: the content, with lines that end in LF, the
sender, and the recipients. As in Postfix, its end is where no other recipient begins, and its
length is read and not compared: a connection has one packet. The answer is a netstring whose first
octet says what became of the message.

`PacketParser` has no I/O: octets in, events out. It keeps no more than an address.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from libmail.text.netstrings import netstring

__all__ = [
    "Announced",
    "Content",
    "End",
    "Event",
    "PacketError",
    "PacketParser",
    "Part",
    "RecipientOf",
    "SenderOf",
    "Status",
    "packet",
]

_LENGTH: Final = re.compile(rb"([0-9]*)(:?)")
_DIGITS: Final = 18  # of a length; no more fit into a machine's word
_UNLIMITED: Final = 1 << 62


class Status(Enum):
    """What became of a message: the first octet of the answer."""

    OK = "K"
    LATER = "Z"
    REFUSED = "D"


class Part(Enum):
    """Where a packet is at, as Postfix logs it."""

    HEADER = "receiving QMQP packet header"
    CONTENT = "receiving message content"
    SENDER = "receiving sender address"
    RECIPIENT = "receiving recipient address"


class PacketError(Exception):
    """The client breaks the protocol, or says more than it may. The text is fit for it."""


class Announced(NamedTuple):
    """The content comes, and has so many octets."""

    octets: int


class Content(NamedTuple):
    """A piece of the content."""

    data: bytes


class SenderOf(NamedTuple):
    """The envelope sender, as the client gave it."""

    address: bytes


class RecipientOf(NamedTuple):
    """A recipient, as the client gave it."""

    address: bytes


class End(NamedTuple):
    """The packet is complete."""


Event: TypeAlias = Announced | Content | SenderOf | RecipientOf | End


def packet(content: bytes, sender: bytes, recipients: Iterable[bytes]) -> bytes:
    """A message as it goes over the wire. content: with lines that end in LF."""
    return netstring(b"".join(map(netstring, (content, sender, *recipients))))


class PacketParser:
    """Takes one packet, in any pieces. part: where it is."""

    def __init__(self, message_limit: int, address_limit: int) -> None:
        """Limits in octets. message_limit: 0 for none."""
        self._message_limit = message_limit or _UNLIMITED
        self._address_limit = address_limit
        self._data = bytearray()
        self._rest: int | None = None  # octets of the netstring at hand that are to come
        self.part = Part.HEADER

    def receive_data(self, data: bytes) -> None:
        """More octets."""
        self._data += data

    def next_event(self) -> Event | None:
        """The next event; None: more octets are needed. Raises PacketError."""
        if self.part is Part.HEADER:
            if self._length(_UNLIMITED) is None:
                return None
            self.part = Part.CONTENT
        if self.part is Part.CONTENT:
            return self._content()
        if self.part is Part.RECIPIENT and self._rest is None and self._data[:1] == b",":
            return End()
        return self._address()

    def _content(self) -> Event | None:
        if self._rest is None:
            self._rest = self._length(self._message_limit)
            return None if self._rest is None else Announced(self._rest)
        if not self._rest:
            if not self._closed():
                return None
            self.part = Part.SENDER
            return self._address()
        piece = bytes(self._data[: self._rest])
        if not piece:
            return None
        del self._data[: len(piece)]
        self._rest -= len(piece)
        return Content(piece)

    def _address(self) -> Event | None:
        if self._rest is None:
            self._rest = self._length(self._address_limit)
        size = self._rest
        if size is None or len(self._data) <= size:
            return None
        address = bytes(self._data[:size])
        del self._data[:size]
        self._closed()
        if self.part is Part.RECIPIENT:
            return RecipientOf(address)
        self.part = Part.RECIPIENT
        return SenderOf(address)

    def _length(self, limit: int) -> int | None:
        """The length of a netstring, which is then taken off; none before the colon is."""
        digits, colon = _LENGTH.match(self._data[: _DIGITS + 2]).groups()  # type: ignore[union-attr]
        if len(digits) > _DIGITS or int(digits or b"0") > limit:
            raise PacketError("netstring length exceeds storage limit")
        if not colon:
            if len(self._data) > len(digits):
                raise PacketError("netstring format error")
            return None
        del self._data[: len(digits) + 1]
        return int(digits or b"0")

    def _closed(self) -> bool:
        """Whether the comma behind a netstring is there; it is then taken off."""
        if not self._data:
            return False
        if self._data[:1] != b",":
            raise PacketError("netstring format error")
        del self._data[:1]
        self._rest = None
        return True
