"""QMQP packets: what they say, in whatever pieces, and what is wrong with them."""

from __future__ import annotations

import pytest

from libmail.smtp.qmqp import (
    Announced,
    Content,
    End,
    Event,
    PacketError,
    PacketParser,
    RecipientOf,
    SenderOf,
    packet,
)
from libmail.text.netstrings import netstring

FORMAT = "netstring format error"
LENGTH = "netstring length exceeds storage limit"
HEADER, CONTENT, SENDER, RECIPIENT = (
    "receiving QMQP packet header",
    "receiving message content",
    "receiving sender address",
    "receiving recipient address",
)


def events(pieces: list[bytes], limit: int = 100) -> list[Event | str]:
    """What a parser makes of it; last what is wrong, or where it waits."""
    parser = PacketParser(limit, 20)
    found: list[Event | str] = []
    for piece in pieces:
        parser.receive_data(piece)
        try:
            while (event := parser.next_event()) is not None:
                if isinstance(event, Content) and found and isinstance(found[-1], Content):
                    event = Content(found.pop().data + event.data)  # type: ignore[union-attr]
                found.append(event)
                if isinstance(event, End):
                    return found
        except PacketError as error:
            return [*found, f"{error} while {parser.part.value}"]
    return [*found, f"waits while {parser.part.value}"]


def ended(data: bytes) -> str:
    last = events([data])[-1]
    assert isinstance(last, str)
    return last


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_packet_in_pieces(size: int) -> None:
    data = packet(b"Subject: x\n\nhi\n", b"s@x.test", [b"r@y.test", b""])
    assert events([data[at : at + size] for at in range(0, len(data), size)]) == [
        Announced(15),
        Content(b"Subject: x\n\nhi\n"),
        SenderOf(b"s@x.test"),
        RecipientOf(b"r@y.test"),
        RecipientOf(b""),
        End(),
    ]


def test_nothing_is_much_too() -> None:
    assert events([packet(b"", b"", [])]) == [Announced(0), SenderOf(b""), End()]


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", f"waits while {HEADER}"),
        (b"10", f"waits while {HEADER}"),
        (b"x", f"{FORMAT} while {HEADER}"),
        (b"-1:", f"{FORMAT} while {HEADER}"),
        (b"9" * 30, f"{LENGTH} while {HEADER}"),
        (b"9:", f"waits while {CONTENT}"),
        (b"0:,", f"{FORMAT} while {CONTENT}"),
        (b"9:101:", f"{LENGTH} while {CONTENT}"),
        (b"9:3:abcx", f"{FORMAT} while {CONTENT}"),
        (netstring(netstring(b"abc")), f"{FORMAT} while {SENDER}"),
        (b"9:3:abc,21:", f"{LENGTH} while {SENDER}"),
        (b"9:3:abc,1:s,", f"waits while {RECIPIENT}"),
        (b"9:3:abc,1:s,1:r,x", f"{FORMAT} while {RECIPIENT}"),
        (b"9:3:abc,1:s,1:rx", f"{FORMAT} while {RECIPIENT}"),
    ],
)
def test_what_is_no_packet(data: bytes, wrong: str) -> None:
    assert ended(data) == wrong


def test_without_a_limit_content_is_not_limited() -> None:
    parser = PacketParser(0, 20)
    parser.receive_data(b"9:123456789012:")
    assert parser.next_event() == Announced(123456789012)
