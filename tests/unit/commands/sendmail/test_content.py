"""Standard input of sendmail: line ends, dots, mbox lines, recipients in the header."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.sendmail.content import (
    HeaderTooLarge,
    header_recipients,
    probe,
    read_header,
    split_header,
)
from commands.sendmail.content import wire_pieces as pieces_of


def reader(chunks: list[bytes]) -> Callable[[int], bytes]:
    """As a pipe: each chunk comes by itself."""
    source = iter([chunk for chunk in chunks if chunk])
    return lambda size: next(source, b"")


def wire(chunks: list[bytes], *, stop_at_dot: bool = True) -> bytes:
    pieces = list(pieces_of(reader(chunks), stop_at_dot=stop_at_dot))
    assert all(pieces)
    return b"".join(pieces)


def reference(data: bytes, *, stop_at_dot: bool) -> bytes:
    """What `wire_pieces` is to give, line by line."""
    lines = re.findall(rb"[^\n]*\n|[^\n]+", data)
    if stop_at_dot:
        dots = [at for at, line in enumerate(lines) if line in (b".\n", b".\r\n", b".")]
        lines = lines[: dots[0]] if dots else lines
    while lines and lines[0].startswith((b"From ", b">From ")) and lines[0].endswith(b"\n"):
        del lines[0]
    text = b""
    for line in lines:
        ended = line.endswith(b"\n")
        body = line.removesuffix(b"\n")
        if ended:
            body = body.removesuffix(b"\r")
        text += body + b"\r\n"
    return text


def cut(data: bytes, points: list[int]) -> list[bytes]:
    ends = sorted({point % (len(data) + 1) for point in points} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


CONTENT = st.lists(
    st.sampled_from([b".", b"\n", b"\r", b"\r\n", b"\n.\n", b"a", b"From x", b">", b"From "]),
    max_size=12,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(CONTENT, st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_equals_the_reference_however_it_is_cut(
    data: bytes, points: list[int], stop_at_dot: bool
) -> None:
    want = reference(data, stop_at_dot=stop_at_dot)
    assert wire(cut(data, points), stop_at_dot=stop_at_dot) == want
    assert wire([bytes([octet]) for octet in data], stop_at_dot=stop_at_dot) == want


CASES = [
    ("plain", b"a\nb\n", b"a\r\nb\r\n"),
    ("dot", b"a\n.\nb\n", b"a\r\n"),
    ("dot first", b".\nb\n", b""),
    ("dot last", b"a\n.", b"a\r\n"),
    ("dot with CR", b"a\r\n.\r\nb\r\n", b"a\r\n"),
    ("dot and more", b"a\n..\n.b\n", b"a\r\n..\r\n.b\r\n"),
    ("mbox line", b"From me today\nSubject: x\n", b"Subject: x\r\n"),
    ("mbox lines", b"From me today\n>From you\nSubject: x\n", b"Subject: x\r\n"),
    ("mbox line alone", b"From me today", b"From me today\r\n"),
    ("lone CR", b"a\rb\n", b"a\rb\r\n"),
    ("CR before CRLF", b"a\r\r\n", b"a\r\r\n"),
]


@pytest.mark.parametrize(
    ("fix", "data", "want"),
    [
        ("always", b"a\r\nb\n", b"a\r\nb\r\n"),
        ("never", b"a\r\nb\n", b"a\r\r\nb\r\n"),
        ("never", b"a", b"a\r\n"),
        ("strict", b"a\r\nb\r\n", b"a\r\nb\r\n"),
        ("strict", b"a\nb\r\n", b"a\r\nb\r\r\n"),
        ("strict", b"", b""),
    ],
)
def test_line_endings(fix: str, data: bytes, want: bytes) -> None:
    for chunks in ([data], [data[at : at + 1] for at in range(len(data))]):
        pieces = pieces_of(reader(chunks), stop_at_dot=False, fix=fix)
        assert b"".join(pieces) == want


@pytest.mark.parametrize(("data", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_wire_pieces(data: bytes, want: bytes) -> None:
    assert wire([data]) == want


HEADERS = [
    ("none", b"Subject: x\r\n\r\nTo: a@b\r\n", []),
    ("all", b"To: a@b\r\nCC: c@d\r\nbcc: e@f\r\n\r\n", [" a@b\r\n", " c@d\r\n", " e@f\r\n"]),
    ("resent", b"To: a@b\r\nResent-To: c@d\r\n\r\n", [" c@d\r\n"]),
    ("resent without", b"To: a@b\r\nResent-From: c@d\r\n\r\n", [" a@b\r\n"]),
    ("folded", b"To: a@b,\r\n\tc@d\r\n\r\n", [" a@b,\r\n\tc@d\r\n"]),
    ("eight bits", b"To: \xff@b\r\n\r\n", [" \udcff@b\r\n"]),
]


@pytest.mark.parametrize(("data", "want"), [c[1:] for c in HEADERS], ids=[c[0] for c in HEADERS])
def test_header_recipients(data: bytes, want: list[str]) -> None:
    assert header_recipients(data) == want


@given(st.lists(st.integers(0, 60), max_size=6))
def test_header_is_read_however_it_is_cut(points: list[int]) -> None:
    data = b"To: a@b\r\n folded\r\nX: y\r\n\r\nbody\r\n"
    pieces: Iterator[bytes] = iter(cut(data, points))
    start = read_header(pieces)
    header, body = split_header(start)
    assert header == b"To: a@b\r\n folded\r\nX: y\r\n"
    assert header + body + b"".join(pieces) == data


def test_probe() -> None:
    assert probe("me@a", ["b@c", "d@e"]) == (
        b"From: me@a\r\nSubject: probe\r\nTo:\tb@c,\r\n\td@e\r\n"
    )


def test_no_recipient_of_a_large_header_is_lost() -> None:
    many = b"".join(b"To: m%d@out.test\r\n" % number for number in range(100_000))
    assert len(header_recipients(many + b"\r\nbody")) == 100_000
    with pytest.raises(HeaderTooLarge):
        header_recipients(many * 3)
