"""Fields of a header, and where it ends."""

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.message import headers
from libmail.message.headers import Batch, HeaderReader, cut_behind_piece, cut_field, fields, scan

SIZE, LINE = 60, 16  # header_size_limit, line_length_limit


@pytest.mark.parametrize(
    ("data", "names", "end", "complete"),
    [
        (b"A: b\r\nC: d\r\n\r\nbody\r\n", [b"a", b"c"], 12, True),
        (b"A: b\r\n folded\r\n\r\n", [b"a"], 15, True),
        (b"A : obsolete\r\n\r\n", [b"a"], 14, True),
        (b"A: b\r\nno field\r\n", [b"a"], 6, True),
        (b"\r\nbody", [], 0, True),
        (b" blank\r\n", [], 0, True),
        (b" ", [], 0, True),
        (b"A: b\r\n", [], 0, False),
        (b"A: b\r\nC", [b"a"], 6, False),
        (b"A: b\r\nC:" + b"x" * 200_000, [b"a"], 6, False),
        (b"A: b\r\n\r", [b"a"], 6, False),
        (b"A: b\r\n\r\r", [b"a"], 6, True),
        (b"A: b\r\n ", [], 0, False),
        (b"", [], 0, False),
        (b":no name\r\n", [], 0, True),
        (b"x" * 2047, [], 0, False),
        (b"x" * 2048, [], 0, True),
        (b"x" * 2048 + b": y\r\n", [], 0, True),
        (b"x" * 2049, [], 0, True),
        (b"x" * 2049 + b": too long\r\n", [], 0, True),
    ],
)
def test_scan(data: bytes, names: list[bytes], end: int, complete: bool) -> None:
    found = scan(data)
    assert ([field.name for field in found.fields], found.end, found.complete) == (
        names, end, complete,
    )  # fmt: skip


def read(pieces: Iterable[bytes]) -> tuple[list[bytes], bytes]:
    """The fields, each cut, and what follows the header."""
    reader = HeaderReader(SIZE)
    seen: list[bytes] = []
    rest: bytes | None = None

    def take(batch: Batch) -> bytes | None:
        for field in batch.fields:
            text = batch.data[field.start : field.end]
            assert text.lower().startswith(field.name)
            seen.append(cut_field(text.removesuffix(b"\r\n"), SIZE))
        return batch.data[batch.end :] if batch.complete else None

    for piece in pieces:
        rest = take(reader.feed(piece)) if rest is None else rest + piece
    return seen, take(reader.end()) or b"" if rest is None else rest


HEADERS = [
    b"A: b\r\nC: d\r\n\r\nbody\r\n",
    b"A: b\r\n folded\r\n\tagain\r\nB : c\r\nno field\r\nmore",
    b"A: b\r\n\r\n",
    b"A: b\r\n\r",
    b"A: b",
    b"",
    b"\r\nbody",
    b" blank\r\nA: b\r\n",
    b"A: b\r\nX:" + b"y" * 40_000 + b"\r\nSubject: s\r\n\r\nbody\r\n",
    b"X: z\r\n" + b" y\r\n" * 15_000 + b"Subject: s\r\n\r\nbody\r\n",
    b"X: z\r\n" + b" \r\n" * 15_000,
    b"A: b\r\n" + b"x" * 40_000 + b"\r\nB: c\r\n",
]


@pytest.mark.parametrize("data", HEADERS, ids=range(len(HEADERS)))
def test_a_boundary_at_every_offset(data: bytes) -> None:
    whole = read([data])
    step = max(len(data) // 500, 1)
    for at in range(0, len(data), step):
        assert read([data[:at], data[at:]]) == whole, at
    for size in (1, 2, 3, 7, 1000):
        assert read(data[at : at + size] for at in range(0, len(data), size)) == whole, size


def test_a_large_field_does_not_end_the_header() -> None:
    fields_, rest = read([HEADERS[8]])
    assert fields_ == [b"A: b", b"X:" + b"y" * 58, b"Subject: s"]
    assert rest == b"\r\nbody\r\n"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (b"X:" + b"a" * 58, b"X:" + b"a" * 58),
        (b"X:" + b"a" * 59, b"X:" + b"a" * 58),
        (b"X: b\r\n " + b"c" * 90, b"X: b\r\n " + b"c" * 54),
        (b"X:" + b"c" * 57 + b"\r\n d", b"X:" + b"c" * 57),
        (b"X: a" + b"\r\n b" * 30, b"X: a" + b"\r\n b" * 18 + b"\r\n "),
    ],
)
def test_cut(text: bytes, cut: bytes) -> None:
    """As cleanup(8) of the original does."""
    assert cut_field(text, SIZE) == cut


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (b"X: " + b"a" * 57, b"X: " + b"a" * 57),
        (b"X: " + b"a" * 58, b"X: " + b"a" * 58),
        (b"X: " + b"a" * 100, b"X: " + b"a" * 61),
        (b"X: a\r\n" + b"\r\n".join([b" 12345678901234"] * 9),
         b"X: a\r\n" + b"\r\n".join([b" 12345678901234"] * 4)),
        (b"X: a" + b"\r\n" * 90, b"X: a"),
    ],
)  # fmt: skip
def test_cut_behind_a_piece(text: bytes, cut: bytes) -> None:
    assert cut_behind_piece(text, SIZE, LINE) == cut


class Counted:
    """A pattern that counts the octets that it may look at."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.octets = 0

    def search(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        self.octets += len(data) - start
        return self.pattern.search(data, start)

    def match(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        found = self.pattern.match(data, start)
        self.octets += 1 if found is None else found.end() - start
        return found


@pytest.mark.parametrize("line", [b"x", b" y\r\n", b"Abc: defg\r\n", b"x" * 2000 + b"\r\n "])
def test_small_pieces_are_not_scanned_again_and_again(
    monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    """A field of any size in pieces of 16 octets costs what it costs in one piece."""
    counted = [Counted(headers._FIELD), Counted(headers._ENDED)]
    monkeypatch.setattr(headers, "_FIELD", counted[0])
    monkeypatch.setattr(headers, "_ENDED", counted[1])
    reader = HeaderReader(102_400)
    data = b"X: y\r\n" + line * (600_000 // len(line))
    for at in range(0, len(data), 16):
        reader.feed(data[at : at + 16])
        assert len(reader._held) <= 2 * 102_400 + 16_400
    assert sum(one.octets for one in counted) < 4 * len(data)


HEADERISH = st.text(alphabet="Aa: \t\n-x").map(lambda text: text.replace("\n", "\r\n").encode())


@given(HEADERISH, st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=300)
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    data += b"\r\n\r\nA: b\r\n"
    edges = [0, *sorted(cuts), len(data)]
    assert read(data[a:b] for a, b in pairwise(edges)) == read([data])


@given(st.binary())
def test_fields_follow_each_other(data: bytes) -> None:
    at = 0
    for field in fields(data):
        assert field.start == at < field.value <= field.end
        at = field.end
