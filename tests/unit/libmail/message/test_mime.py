"""Where the fields of a message and its parts are."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libmail.message.content_type import ContentType, parse_content_type
from libmail.message.headers import cut_field
from libmail.message.mime import MimeLimits, MimeSplitter, Piece, Place

TYPES = [
    (b" text/plain", (b"text", b"plain")),
    (b" Text / HTML; charset=x", (b"text", b"html")),
    (b' multipart/mixed; boundary="a b"', (b"multipart", b"mixed", b"a b")),
    (b" multipart/mixed (a;b); x=y;\r\n BOUNDARY = a=b/c", (b"multipart", b"mixed", b"a")),
    (b' multipart/mixed; boundary="a\r\n b" junk', (b"multipart", b"mixed", b"a b")),
    (b' multipart/mixed; boundary="ab\r\n', (b"multipart", b"mixed", b"ab")),
    (
        b" multipart/mixed (a (b) c); boundary=one; boundary=two",
        (b"multipart", b"mixed", b"one", b"two"),
    ),
    (b" multipart", (b"multipart", b"")),
    (b' "multipart"/mixed; boundary=b', (b"text", b"plain")),
    (rb' multipart/mixed; boundary="a\"b\\"', (b"multipart", b"mixed", rb'a"b' + b"\\")),
    (b' multipart/mixed; x="; boundary=no"; boundary=yes', (b"multipart", b"mixed", b"yes")),
    (b" multipart/mixed", (b"multipart", b"mixed")),
    (b" nonsense", (b"text", b"plain")),
    (b"", (b"text", b"plain")),
]


@pytest.mark.parametrize(("value", "want"), TYPES)
def test_content_type(value: bytes, want: tuple[bytes, ...]) -> None:
    kind, subtype, *boundaries = want
    assert parse_content_type(value) == ContentType(kind, subtype, tuple(boundaries))


def wire(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def split(header: str, body: str, size: int = 1 << 20, *, nesting: int = 100,
          boundary: int = 2048) -> list[Piece]:  # fmt: skip
    splitter = MimeSplitter(MimeLimits(nesting, boundary, 500, lambda text: cut_field(text, 500)))
    pieces = list(splitter.header(wire(header)))
    data = wire(body)
    for start in range(0, len(data), size):
        pieces += splitter.feed(data[start : start + size])
    return pieces + list(splitter.end())


def shown(pieces: list[Piece]) -> list[str]:
    """Places and text; neighbours in the body are one."""
    lines: list[str] = []
    for place, data in pieces:
        if place is Place.END:
            assert not data
        elif place is Place.BODY and lines and lines[-1].startswith("BODY"):
            lines[-1] += data.decode()
        else:
            lines.append(f"{place.name} {data.decode()}")
    return [line.replace("\r\n", "|") for line in lines]


def test_plain() -> None:
    pieces = split("Subject: a\nContent-Type: text/plain\nMime-Version: 1.0\n", "\nx\n--x\n")
    assert shown(pieces) == [
        "PRIMARY Subject: a|",
        "MIME Content-Type: text/plain|",
        "MIME Mime-Version: 1.0|",
        "BODY |x|--x|",
    ]


def test_parts() -> None:
    pieces = split(
        "Content-Type: multipart/mixed; boundary=b\n",
        "\npreamble\n--bx\nX: 1\n folded\n\ntext\n-- \n--b\nno header\n--b\n\nbare\n--b\nY: 2\n"
        "--b--\nepilogue\n--c\n",
    )
    assert shown(pieces) == [
        "MIME Content-Type: multipart/mixed; boundary=b|",
        "BODY |preamble|",
        "DELIMITER --bx|",  # the beginning of the line decides
        "MIME X: 1| folded|",
        "BODY |text|-- |",
        "DELIMITER --b|",
        "BODY no header|",
        "DELIMITER --b|",
        "BODY |bare|",
        "DELIMITER --b|",
        "MIME Y: 2|",
        "DELIMITER --b--|",
        "BODY epilogue|--c|",
    ]


def test_attached_messages() -> None:
    pieces = split(
        "Content-Type: multipart/digest; boundary=b\n",
        "\n--b\n\nSubject: one\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nin\n--b\n"
        "Content-Type: message/rfc822\n\nSubject: two\nContent-Type: message/global\n\n"
        "Subject: three\n\ntext\n--b--\n",
    )
    assert shown(pieces) == [
        "MIME Content-Type: multipart/digest; boundary=b|",
        "BODY |",
        "DELIMITER --b|",
        "BODY |",
        "NESTED Subject: one|",
        "MIME Content-Type: multipart/mixed; boundary=i|",
        "BODY |",
        "DELIMITER --i|",
        "BODY |in|",
        "DELIMITER --b|",
        "MIME Content-Type: message/rfc822|",
        "BODY |",
        "NESTED Subject: two|",
        "MIME Content-Type: message/global|",
        "BODY |",
        "NESTED Subject: three|",
        "BODY |text|",
        "DELIMITER --b--|",
    ]


@pytest.mark.parametrize("subtype", ["partial", "external-body", "delivery-status"])
def test_other_messages_are_body(subtype: str) -> None:
    pieces = split(f"Content-Type: message/{subtype}\n", "\nX: 1\n\n")
    assert shown(pieces)[1:] == ["BODY |X: 1||"]


def test_limits() -> None:
    body = "\n--abx\nContent-Type: multipart/mixed; boundary=cd\n\n--cd\nX: 1\n\n"
    head = "Content-Type: multipart/mixed; boundary=abc\n"
    assert "DELIMITER --abx|" in shown(split(head, body, boundary=2))
    assert "DELIMITER --abx|" not in shown(split(head, body))
    assert "MIME X: 1|" in shown(split(head, body, boundary=2, nesting=1))
    deep = "".join(
        f"\n--b{n}.\nContent-Type: multipart/mixed; boundary=b{n + 1}.\n" for n in range(300)
    )
    found = shown(split("Content-Type: multipart/mixed; boundary=b0.\n", deep, nesting=5))
    assert sum(line.startswith("DELIMITER") for line in found) == 7


def test_a_large_field_is_cut() -> None:
    splitter = MimeSplitter(MimeLimits(1, 9, 500, lambda text: cut_field(text, 500)))
    pieces = list(splitter.header(b"Content-Type: message/rfc822\r\n"))
    pieces += splitter.feed(b"\r\nX:y\r\n")
    for _ in range(20):
        pieces += splitter.feed(b" more\r\n" * 10_000)
    pieces += splitter.feed(b"Y: z\r\n\r\nbody\r\n")
    large, *others = [piece for piece in pieces if piece.place is Place.NESTED]
    assert large.data == b"X:y" + b"\r\n more" * 82 + b"\r\n mor\r\n"
    assert others == [Piece(Place.NESTED, b"Y: z\r\n")]
    assert shown(pieces)[-1] == "BODY |body|"


LINES = st.lists(
    st.sampled_from(
        ["--a\n", "--b\n", "--ab--\n", "--a--\n", "\n", "X: 1\n", " more\n", "text\n", "--", "-",
         "Content-Type: multipart/mixed; boundary=a\n", "Content-Type: message/rfc822\n",
         "Content-Type: multipart/digest; boundary=ab\n", "Content-Type: text/plain\n"]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LINES, LINES, st.integers(1, 20))
@example("Content-Type: multipart/mixed; boundary=a\n", "\n--a\nX: 1", 1)
def test_nothing_is_lost_and_pieces_do_not_matter(header: str, body: str, size: int) -> None:
    whole = split(header, body)
    text = b"".join(piece.data for piece in whole)
    assert text in (wire(header) + wire(body), wire(header) + wire(body) + b"\r\n")
    assert shown(split(header, body, size)) == shown(whole)


def test_a_header_of_many_fields_needs_no_memory_of_its_own() -> None:
    many = b"a:\r\n" * 50_000
    splitter = MimeSplitter(MimeLimits(100, 2048, 500, lambda text: cut_field(text, 500)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in splitter.header(many)) == 50_001
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(many)
