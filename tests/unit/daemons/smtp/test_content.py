"""Content on its way out: lines, 7-bit conversion, mapped addresses."""

from __future__ import annotations

import asyncio
import email
import email.policy
import quopri
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemons.smtp.content import Edit, LineEdits, break_lines, stuff_dots
from daemons.smtp.downgrade import downgrade
from daemons.smtp.generic import GenericMaps
from libmail.tables.maps import Maps
from libmail.tables.match import StringList

TEXT = st.lists(
    st.sampled_from([b"a", b".", b"\r\n", b"\n", b"=", b" ", b"\xc3\xa9", b"abcdefgh" * 4]),
    max_size=40,
).map(b"".join)


def edited(pieces: Iterable[bytes], *edits: Edit) -> bytes:
    lines = LineEdits(edits)
    return b"".join([lines.feed(piece) for piece in pieces]) + lines.end()


@settings(max_examples=200, deadline=None)
@given(TEXT, st.integers(1, 9))
def test_pieces_do_not_matter(data: bytes, size: int) -> None:
    edits = (break_lines(20), stuff_dots)
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert edited(pieces, *edits) == edited([data], *edits)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_content_cannot_end_the_message(data: bytes) -> None:
    sent = edited([data], stuff_dots)
    assert b"\n.\r\n" not in b"\n" + sent + b"\r\n"
    assert b"\n.\n" not in b"\n" + sent + b"\r\n"


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_broken_lines(data: bytes) -> None:
    data = data.replace(b"\n", b"").replace(b"\r", b"")
    sent = break_lines(20)(data + b"\r\n")
    assert sent.replace(b"\r\n ", b"") == data + b"\r\n"
    assert max(map(len, sent.split(b"\r\n"))) <= 20


MIME = (
    b'Content-Transfer-Encoding: 8bit\r\nContent-Type: multipart/mixed;\r\n boundary="b c"\r\n'
    b"\r\npre\r\n--b c\r\nContent-Type: text/plain\r\ncontent-transfer-encoding: 8BIT\r\n\r\n"
    b"%s\r\n--b c\r\nContent-Type: message/rfc822\r\n\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"\xff\r\n--b c--\r\nend\r\n"
)


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_downgrade(data: bytes) -> None:
    data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    message = MIME % data
    sent = downgrade(message)
    assert sent.isascii()
    assert max(map(len, sent.split(b"\r\n"))) <= 76
    before, after = (
        [
            part.get_payload(decode=True)
            for part in email.message_from_bytes(one, policy=email.policy.SMTP).walk()
            if not part.is_multipart()
        ]
        for one in (message, sent)
    )
    assert before == after


UNCHANGED = [
    b"Subject: x\r\n\r\nnot declared \xff\r\n",
    b"Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n",
    b"",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts \xff",
]


@pytest.mark.parametrize("message", UNCHANGED)
def test_left_alone(message: bytes) -> None:
    assert downgrade(message) == message


def test_nesting_is_bounded() -> None:
    depth = b"Content-Type: message/rfc822\r\n\r\n" * 3000
    assert downgrade(depth + b"x\r\n") == depth + b"x\r\n"


def test_quoted_printable_of_a_long_line() -> None:
    message = b"Content-Transfer-Encoding: 8bit\r\n\r\n" + b"\xe9" * 300_000
    head, _, body = downgrade(message).partition(b"\r\n\r\n")
    assert head == b"Content-Transfer-Encoding: quoted-printable"
    assert quopri.decodestring(body) == b"\xe9" * 300_000


def generic(*pairs: str) -> GenericMaps:
    text = " ".join(f"{{{pair}}}" for pair in pairs)
    return GenericMaps(
        Maps("smtp_generic_maps", f"inline:{{ {text} }}"),
        delimiters="+",
        propagate=True,
        origin="other.test",
        local=StringList("mydestination", ["in.test"]),
    )


MAPPED = [
    ("a@in.test", "a.out@isp.test"),
    ("a+x@in.test", "a.out+x@isp.test"),
    ("bob@in.test", "bob@isp.test"),
    ("c@other.test", "c@other.test"),
    ("", ""),
]


@pytest.mark.parametrize(("address", "want"), MAPPED)
def test_generic(address: str, want: str) -> None:
    maps = generic("a@in.test=a.out@isp.test", "@in.test=@isp.test")
    assert asyncio.run(maps.map(address)) == want


def test_generic_header() -> None:
    maps = generic("a@in.test=a.out@isp.test", "@in.test=@isp.test")
    header = b"From: Al <a@in.test>\r\nTo: x@y.test,\r\n b@in.test\r\nSubject: a@in.test\r\n"
    assert asyncio.run(maps.map_header(header)) == (
        b"From: Al <a.out@isp.test>\r\nTo: x@y.test, b@isp.test\r\nSubject: a@in.test\r\n"
    )
    assert asyncio.run(maps.map_header(b"From: x@y.test\r\n")) is None
