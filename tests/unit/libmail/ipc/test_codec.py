"""The wire codec: what is sent arrives, in any pieces; anything else is a WireError."""

import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.ipc.codec import (
    CHUNK_END,
    MAX_CHUNK,
    Chunk,
    Codec,
    Unframer,
    WireError,
    encode_chunk,
)
from libmail.ipc.messages import CODEC, BounceAppend, Recipient, Recipients, Target


class Item(NamedTuple):
    name: str
    number: int


class Sample(NamedTuple):
    text: str
    number: int
    fraction: float
    truth: bool
    items: tuple[Item, ...]
    words: tuple[str, ...]


SAMPLES = Codec([Sample, Item])

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
samples = st.builds(
    Sample,
    texts,
    st.integers(-(2**63), 2**63),
    st.floats(0, 1e15),
    st.booleans(),
    st.lists(st.builds(Item, texts, st.integers(0, 10**9)), max_size=5).map(tuple),
    st.lists(texts, max_size=5).map(tuple),
)


def events(data: bytes, sizes: list[int]) -> list[object]:
    unframer = Unframer(SAMPLES)
    found: list[object] = []
    at = 0
    for size in [*sizes, len(data)]:
        unframer.receive_data(data[at : at + size])
        at += size
        found += unframer
    return found


@given(st.lists(samples, max_size=4), st.lists(st.integers(1, 60), max_size=20))
@settings(max_examples=100)
def test_round_trip_in_any_pieces(messages: list[Sample], sizes: list[int]) -> None:
    data = b"".join(SAMPLES.encode(message) for message in messages)
    assert events(data, sizes) == messages


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=10))
@settings(max_examples=200)
def test_any_bytes_are_events_or_a_wire_error(data: bytes, sizes: list[int]) -> None:
    try:
        events(data, sizes)
    except WireError:
        return


@given(st.lists(st.text("0123456789\0-ab", max_size=6), max_size=20))
@settings(max_examples=200)
def test_any_attributes_are_a_message_or_a_wire_error(parts: list[str]) -> None:
    body = "request\0Sample\0" + "\0".join(parts) + "\0"
    try:
        SAMPLES.decode(body.encode())
    except WireError:
        return


def test_bytes_that_are_not_utf8_survive() -> None:
    recipient = Recipient(b"caf\xe9@example.com".decode("utf-8", "surrogateescape"))
    message = Recipients((recipient,))
    assert CODEC.decode(CODEC.attributes(message)) == message


@pytest.mark.parametrize("value", ["a\0b", "\0"])
def test_nul_in_a_value_is_refused(value: str) -> None:
    with pytest.raises(WireError, match="NUL"):
        CODEC.encode(Recipients((Recipient(value),)))


@pytest.mark.parametrize(
    ("attributes", "match"),
    [
        (b"request\0Nonsense\0", "unknown request"),
        (b"queue_id\0A\0", "request name"),
        (b"request\0Item\0name\0x\0", "got attributes"),
        (b"request\0Item\0name\0x\0number\0one\0", "not a number"),
        (b"request\0Item\0name\0x\0number\0", "a name without value"),
        (b"request\0Item\0name\0x\0number\x001\0extra\0y\0", "got attributes"),
        (b"request\0Item\0number\x001\0name\0x\0", "got attributes"),
        (b"request\0Item\0name\0x\0number\x001", "request name"),
    ],
)
def test_what_does_not_decode(attributes: bytes, match: str) -> None:
    with pytest.raises(WireError, match=match):
        SAMPLES.decode(attributes)


def test_wrong_count_of_elements() -> None:
    good = CODEC.attributes(Recipients((Recipient("a"), Recipient("b"))))
    with pytest.raises(WireError):
        CODEC.decode(good.replace(b"recipients\x002\0", b"recipients\x003\0"))
    with pytest.raises(WireError):
        CODEC.decode(good.replace(b"recipients\x002\0", b"recipients\x00-1\0"))


def test_content_is_cut_into_chunks() -> None:
    content = bytes(range(256)) * 2048
    unframer = Unframer(CODEC)
    unframer.receive_data(encode_chunk(content) + CHUNK_END)
    chunks = list(unframer)
    assert all(isinstance(chunk, Chunk) and len(chunk.data) <= MAX_CHUNK for chunk in chunks)
    assert b"".join(chunk.data for chunk in chunks if isinstance(chunk, Chunk)) == content
    assert chunks[-1] == Chunk(b"")


@given(
    st.lists(st.one_of(samples, st.binary(min_size=1, max_size=3000)), max_size=5),
    st.lists(st.integers(1, 2000), max_size=20),
    st.integers(1, 5),
)
def test_units_are_taken_when_it_suits(
    units: list[Sample | bytes], sizes: list[int], taken: int
) -> None:
    """Not after every part that is received, and not all that there are."""
    data = b"".join(
        encode_chunk(unit) if isinstance(unit, bytes) else SAMPLES.encode(unit) for unit in units
    )
    unframer, at, found = Unframer(SAMPLES), 0, list[object]()
    for number, size in enumerate([*sizes, len(data)]):
        part = data[at : at + size]
        if part:
            unframer.receive_data(part)
        at += size
        if number % taken == 0:
            found += filter(None, [unframer.next_event()])
    found += unframer
    assert found == [Chunk(unit) if isinstance(unit, bytes) else unit for unit in units]
    assert unframer.pending == 0


def test_a_unit_in_very_small_parts() -> None:
    unframer = Unframer(CODEC)
    content = random.Random(1).randbytes(1000)
    for octet in encode_chunk(content):
        assert unframer.next_event() is None
        unframer.receive_data(bytes([octet]))
    assert list(unframer) == [Chunk(content)]


def test_oversized_unit_is_refused_before_it_is_read() -> None:
    unframer = Unframer(CODEC)
    unframer.receive_data((1 << 30).to_bytes(4, "big"))
    with pytest.raises(WireError, match="octets"):
        unframer.next_event()


def test_nested_records_keep_their_fields() -> None:
    target = Target(
        address="a@b", orig_rcpt="c@d", dsn_orcpt="", notify=3, offset=17, action="failed",
        status="5.1.1", reason="no such user", time=12.5,
    )  # fmt: skip
    message = BounceAppend("ABC123", (target, target))  # type: ignore[arg-type]
    assert CODEC.decode(CODEC.attributes(message)) == message
