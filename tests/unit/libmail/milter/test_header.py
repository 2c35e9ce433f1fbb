"""Changes of a header: each is done, and the result is a header that says what was meant."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.message.headers import fields
from libmail.milter.header import HeaderFields

OWN = b"Received: ours\r\n"
HEADER = OWN + b"Subject: a\r\nX: 1\r\n\tmore\r\nX: 2\r\n"


def edited(method: str, *arguments: object) -> bytes:
    header = HeaderFields(HEADER, own=OWN)
    getattr(header, method)(*arguments)
    return header.data()


CASES = [
    ("add", ("Y", b" z"), HEADER + b"Y: z\r\n"),
    ("insert", (0, b"Y", b" z"), b"Y: z\r\n" + HEADER),
    ("insert", (1, b"Y", b" z"), HEADER.replace(b"Subject", b"Y: z\r\nSubject")),
    ("insert", (99, b"Y", b" z"), HEADER + b"Y: z\r\n"),
    ("change", (2, b"x", b" 3"), HEADER.replace(b"X: 2", b"x: 3")),
    ("change", (2, b"X", b" 3", b"Y"), HEADER.replace(b"X: 2", b"Y: 3")),
    ("change", (1, b"X", b""), HEADER.replace(b"X: 1\r\n\tmore\r\n", b"")),
    ("change", (3, b"X", b" 3"), HEADER + b"X: 3\r\n"),
    ("change", (1, b"Received", b""), HEADER),
    ("add", (b"Y", b" a\nb\r\n\r\nc\n"), HEADER + b"Y: a\r\n\tb\r\n\t\r\n\tc\r\n\t\r\n"),
]


@pytest.mark.parametrize(("method", "arguments", "want"), CASES)
def test_edits(method: str, arguments: tuple[object, ...], want: bytes) -> None:
    arguments = tuple(x.encode() if isinstance(x, str) else x for x in arguments)
    assert edited(method, *arguments) == want


def test_own_fields_are_not_shown() -> None:
    shown = HeaderFields(HEADER, own=OWN).shown()
    assert list(shown) == [(b"Subject", b" a"), (b"X", b" 1\n\tmore"), (b"X", b" 2")]


def test_spaces_before_a_colon_are_not_shown() -> None:
    assert list(HeaderFields(b"A \t: b\r\nC:\r\n").shown()) == [(b"A", b" b"), (b"C", b"")]


@pytest.mark.parametrize(("index", "place"), [(0, 0), (1, 0), (2, 1), (99, 3)])
def test_what_was_inserted_is_shown_and_can_be_changed(index: int, place: int) -> None:
    header = HeaderFields(HEADER, own=OWN)
    header.insert(index, b"Y", b" z")
    assert list(header.shown())[place] == (b"Y", b" z")
    header.change(1, b"Y", b" longer")
    assert list(header.shown())[place] == (b"Y", b" longer")
    header.change(1, b"y", b"")
    assert header.data() == HEADER
    assert list(header.shown()) == list(HeaderFields(HEADER, own=OWN).shown())


def test_millions_of_fields_need_no_memory_of_their_own() -> None:
    many = b"a:\r\n" * 100_000
    tracemalloc.start()
    try:
        header = HeaderFields(HEADER + many, own=OWN)
        assert sum(1 for _ in header.shown()) == 100_003
        header.insert(1, b"Y", b" z")
        header.change(50_000, b"A", b" z")
        header.add(b"Y", b" z")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(many)


names = st.sampled_from([b"X", b"Y", b"Subject"])
values = st.text("ab \t\n\r\0:", max_size=12).map(str.encode)
edits = st.one_of(
    st.tuples(st.just("add"), names, values),
    st.tuples(st.just("insert"), st.integers(0, 6), names, values),
    st.tuples(st.just("change"), st.integers(0, 6), names, values),
)


@given(st.lists(edits, max_size=8))
def test_any_edits_leave_a_header(todo: list[tuple[object, ...]]) -> None:
    header = HeaderFields(HEADER, own=OWN)
    for method, *arguments in todo:
        getattr(header, str(method))(*arguments)
        data = header.data()
        found = fields(data)
        assert b"".join(data[f.start : f.end] for f in found) == data
        shown = b"".join(name + b":" + value + b"\n" for name, value in header.shown())
        assert b"Received: ours\r\n" in data
        assert data.replace(b"Received: ours\r\n", b"", 1) == shown.replace(b"\n", b"\r\n")
