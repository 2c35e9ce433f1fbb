"""Packets of the Milter protocol: what parses, what is refused, at any chunking."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.milter import protocol
from libmail.milter.protocol import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    Command,
    Edits,
    InsertHeader,
    MilterError,
    PacketReader,
    Quarantine,
    Refuse,
    ReplaceBody,
    Stage,
    Steps,
    parse_answer,
    parse_negotiation,
)
from libmail.smtp.reply import Reply


def wire(name: str, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + name.encode() + data


ANSWERS = [
    ("accept", "a", b"", protocol.Accept()),
    ("progress", "p", b"", protocol.Progress()),
    ("reply", "y", b"550 5.7.1 no\0", Refuse(Reply(550, "5.7.1", "no"))),
    ("reply without status", "y", b"451 later\0", Refuse(Reply(451, "", "later"))),
    ("reply without text", "y", b"550 5.7.1\0", Refuse(Reply(550, "", "5.7.1"))),
    ("percent", "y", b"550 5.7.1 10%% %d\0", Refuse(Reply(550, "5.7.1", "10% d"))),
    (
        "lines",
        "y",
        b"550-5.7.1 one\r\n550 5.7.1 two\0",
        Refuse(Reply(550, "5.7.1", "one\ntwo")),
    ),
    (
        "lines with statuses of their own",
        "y",
        b"550-5.7.1 one\n550 5.7.2 two\0",
        Refuse(Reply(550, "", "5.7.1 one\n5.7.2 two")),
    ),
    ("no reason", "q", b"", Quarantine("")),
    ("add", "h", b"X-A\0 b\n\tc\0", AddHeader(b"X-A", b" b\n\tc")),
    ("insert", "i", b"\0\0\0\1X-A\0b\0", InsertHeader(1, b"X-A", b"b")),
    ("change", "m", b"\0\0\0\2Subject\0\0", ChangeHeader(2, b"Subject", b"")),
    ("body", "b", b"any\0thing", ReplaceBody(b"any\0thing")),
    ("recipient", "+", b"<a@b>\0", AddRecipient("<a@b>")),
    (
        "recipient and arguments",
        "2",
        b"<a@b>\0NOTIFY=NEVER\0",
        AddRecipient("<a@b>", "NOTIFY=NEVER"),
    ),
    ("sender", "e", b"<>\0", ChangeSender("<>")),
    ("quarantine", "q", b"virus\0", Quarantine("virus")),
]


@pytest.mark.parametrize(
    ("name", "data", "want"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_answers(name: str, data: bytes, want: object) -> None:
    assert parse_answer(ord(name), data) == want


BAD = [
    ("unknown", "Z", b""),
    ("data behind accept", "a", b"x"),
    ("no code", "y", b"no\0"),
    ("positive code", "y", b"250 ok\0"),
    ("two codes", "y", b"550-a\n451 b\0"),
    ("no NUL", "y", b"550 no"),
    ("status of another class", "y", b"550 4.7.1 no\0"),
    ("short index", "m", b"\0\0"),
    ("one string", "h", b"X-A\0"),
    ("three strings", "h", b"X-A\0b\0c\0"),
    ("colon in a name", "h", b"X:A\0b\0"),
    ("line end in a name", "h", b"X\nA\0b\0"),
    ("no name", "h", b"\0b\0"),
    ("NUL in an address", "+", b"a\0b\0"),
    ("name longer than a line", "h", b"X" * 999 + b"\0b\0"),
    ("endless reply", "y", b"550 " + b"x" * 20_000 + b"\0"),
    ("endless reply of lines", "y", b"550-x\n" * 3000 + b"550 x\0"),
]


@pytest.mark.parametrize(
    ("name", "data"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_answers(name: str, data: bytes) -> None:
    with pytest.raises(MilterError):
        parse_answer(ord(name), data)


@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_answer_parses_or_is_an_error(name: int, data: bytes) -> None:
    complaint = ""
    try:
        parse_answer(name, data)
    except MilterError as error:
        complaint = str(error)
    assert complaint.isascii()
    assert complaint.isprintable()


def packets(chunks: Iterable[bytes]) -> list[tuple[int, bytes]]:
    reader = PacketReader()
    out = []
    for chunk in chunks:
        reader.receive_data(chunk)
        while (one := reader.next_packet()) is not None:
            out.append(one)
    return out


def test_chunking_is_invisible() -> None:
    data = wire("c") + wire("h", b"X-A\0b\0") + wire("b", b"\0" * 700) + wire("a")
    whole = packets([data])
    assert [chr(name) for name, _ in whole] == ["c", "h", "b", "a"]
    for at in range(len(data)):
        assert packets([data[:at], data[at:]]) == whole
    assert packets(data[i : i + 1] for i in range(len(data))) == whole


@pytest.mark.parametrize("length", [0, (1 << 20) + 1, 0xFFFFFFFF])
def test_lengths_are_bounded(length: int) -> None:
    reader = PacketReader()
    reader.receive_data(struct.pack(">I", length))
    with pytest.raises(MilterError):
        reader.next_packet()


def test_negotiation_with_macros() -> None:
    data = struct.pack(">III", 6, 0x1, 0x2) + struct.pack(">I", 2) + b"i {x}\0"
    data += struct.pack(">I", 99) + b"ignored\0"
    got = parse_negotiation(Command.NEGOTIATE, data)
    assert got == (6, Edits.ADD_HEADERS, Steps.NO_HELO, {Stage.MAIL: "i {x}"})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a", b""),
        ("O", b"\0\0\0\6"),
        ("O", struct.pack(">IIII", 6, 0, 0, 2)),
        ("O", struct.pack(">IIII", 6, 0, 0, 2) + b"x" * 5000 + b"\0"),
    ],
)
def test_bad_negotiations(name: str, data: bytes) -> None:
    with pytest.raises(MilterError):
        parse_negotiation(ord(name), data)


def test_strings_end_at_their_nul() -> None:
    assert protocol.strings("a", "b\0c", "\udcff") == b"a\0b\0\xff\0"
    assert protocol.strings() == b""
    assert protocol.header_event(b"a", b"b\0c") == b"a\0b\0"
