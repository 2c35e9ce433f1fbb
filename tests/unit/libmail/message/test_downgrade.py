"""8-bit content as 7-bit data. The cases are what the real smtp(8) makes of them."""

from __future__ import annotations

import email
import email.policy
import quopri

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.message.downgrade import Downgrade
from libmail.message.headers import cut_field, fields
from libmail.message.mime import MimeLimits

TEXT = st.lists(
    st.sampled_from([b"a", b".", b"\r\n", b"\n", b"=", b" ", b"\xc3\xa9", b"abcdefgh" * 4]),
    max_size=40,
).map(b"".join)
LIMITS = MimeLimits(nesting=100, boundary=2048, field=3000, cut=lambda text: cut_field(text, 3000))


def downgrade(message: bytes, size: int = 1 << 18) -> bytes:
    found = fields(message)
    end = found[-1].end if found else 0
    engine = Downgrade(LIMITS)
    pieces = [engine.header(message[:end])]
    pieces += [engine.feed(message[at : at + size]) for at in range(end, len(message), size)]
    return b"".join((*pieces, engine.end()))


def wire(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


MULTIPART = "Content-Type: multipart/mixed; boundary="
EIGHTBIT = "Content-Transfer-Encoding: 8bit\n"
QUOTED = "Content-Transfer-Encoding: quoted-printable\n"
SEVENBIT = "Content-Transfer-Encoding: 7bit\n"
CASES = {
    "moved to the end": (f"{EIGHTBIT}X: y\n\né=\n", f"X: y\n{QUOTED}\n=C3=A9=3D\n"),
    "message/global": (
        f"Content-Type: message/global\n{EIGHTBIT}\nX: é\n{EIGHTBIT}\nb=\n",
        f"Content-Type: message/global\n{QUOTED}\nX: =C3=A9\n{EIGHTBIT}\nb=3D\n",
    ),
    "message/global in 7 bits": (
        f"Content-Type: message/global\n\nX: y\n{EIGHTBIT}\né\n",
        f"Content-Type: message/global\n\nX: y\n{QUOTED}\n=C3=A9\n",
    ),
    "without 8-bit data": (f"{EIGHTBIT}\nabc \ndef=\n", f"{QUOTED}\nabc=20\ndef=3D\n"),
    "no body": (EIGHTBIT, QUOTED),
    "comments": (
        "Content-Transfer-Encoding: (c) 8Bit (d)\n\né\n",
        f"{QUOTED}\n=C3=A9\n",
    ),
    "parameter": ("Content-Transfer-Encoding: 8bit; x=y\n\né\n", f"{QUOTED}\n=C3=A9\n"),
    "quoted": (
        'Content-Transfer-Encoding: "8bit"\n\né\n',
        'Content-Transfer-Encoding: "8bit"\n\né\n',
    ),
    "slash": (
        "Content-Transfer-Encoding: 8bit/x\n\né\n",
        "Content-Transfer-Encoding: 8bit/x\n\né\n",
    ),
    "base64 last": (
        f"{EIGHTBIT}Content-Transfer-Encoding: base64\n\né=\n",
        "Content-Transfer-Encoding: base64\n\né=\n",
    ),
    "base64 first": (
        f"Content-Transfer-Encoding: base64\n{EIGHTBIT}\né=\n",
        f"Content-Transfer-Encoding: base64\n{QUOTED}\n=C3=A9=3D\n",
    ),
    "unknown last": (
        f"{EIGHTBIT}Content-Transfer-Encoding: x-foo\n\né=\n",
        f"{QUOTED}\n=C3=A9=3D\n",
    ),
    "two": (
        f"{EIGHTBIT}Content-Transfer-Encoding: binary\nX: y\n\né\n",
        f"X: y\n{QUOTED}\n=C3=A9\n",
    ),
    "parts": (
        f"{MULTIPART}b\n{EIGHTBIT}\npreé=\n--b\n{EIGHTBIT}\né=\n--b\n\né=\n--b--\npost é=\n",
        f"{MULTIPART}b\n{SEVENBIT}\npreé=\n--b\n{QUOTED}\n=C3=A9=3D\n--b\n\né=\n--b--\npost é=\n",
    ),
    "no boundary": (
        f"Content-Type: multipart/mixed\n{EIGHTBIT}\né=\n--b\nx\n",
        f"Content-Type: multipart/mixed\n{SEVENBIT}\né=\n--b\nx\n",
    ),
    "folded boundary": (
        f'{MULTIPART}"a\n b"\n\n--a b\n{EIGHTBIT}\né\n--a b--\n',
        f'{MULTIPART}"a\n b"\n\n--a b\n{QUOTED}\n=C3=A9\n--a b--\n',
    ),
    "quote in boundary": (
        f'{MULTIPART}"a\\"b"\n\n--a"b\n{EIGHTBIT}\né\n--a"b--\n',
        f'{MULTIPART}"a\\"b"\n\n--a"b\n{QUOTED}\n=C3=A9\n--a"b--\n',
    ),
    "unterminated boundary": (
        f'{MULTIPART}"ab\n\n--ab\n{EIGHTBIT}\né\n--ab--\n',
        f'{MULTIPART}"ab\n\n--ab\n{QUOTED}\n=C3=A9\n--ab--\n',
    ),
    "boundary up to a special": (
        f"{MULTIPART}a=b\n\n--a=b\n{EIGHTBIT}\né\n--a\n{EIGHTBIT}\né\n",
        f"{MULTIPART}a=b\n\n--a=b\n{QUOTED}\n=C3=A9\n--a\n{QUOTED}\n=C3=A9\n",
    ),
    "two boundaries": (
        f"{MULTIPART}one; boundary=two\n\n--two\n{EIGHTBIT}\né\n--one\n{EIGHTBIT}\né\n"
        f"--two\n{EIGHTBIT}\né\n--one--\n",
        f"{MULTIPART}one; boundary=two\n\n--two\n{QUOTED}\n=C3=A9\n--one\n{QUOTED}\n=C3=A9\n"
        f"--two\n{EIGHTBIT}\n=C3=A9\n--one--\n",
    ),
    "two types": (
        f"{MULTIPART}ab\nContent-Type: text/plain\n\n--ab\n{EIGHTBIT}\né\n--ab--\n",
        f"{MULTIPART}ab\nContent-Type: text/plain\n\n--ab\n{QUOTED}\n=C3=A9\n--ab--\n",
    ),
    "no empty line": (
        f"{MULTIPART}ab\n\n--ab\nno header é\n--ab\n{EIGHTBIT}no header é\né\n--ab--\n",
        f"{MULTIPART}ab\n\n--ab\nno header é\n--ab\n{QUOTED}no header =C3=A9\n=C3=A9\n--ab--\n",
    ),
    "other message": (
        f"Content-Type: message/delivery-status\n{EIGHTBIT}\nX: é \n\nY: é\n",
        f"Content-Type: message/delivery-status\n{SEVENBIT}\nX: =C3=A9=20\n\nY: =C3=A9\n",
    ),
    "long lines": (
        f"{EIGHTBIT}\n{'z' * 72} \n{'z' * 73} \n{'é' * 20}\n",
        f"{QUOTED}\n{'z' * 72}=20\n{'z' * 73}=\n=20\n{'=C3=A9' * 12}=C3=\n=A9{'=C3=A9' * 7}\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_as_the_original(name: str) -> None:
    before, after = (wire(text) for text in CASES[name])
    assert downgrade(before) == after
    for size in (1, 2, 3, 5, 7):
        assert downgrade(before, size) == after


MIME = (
    b'Content-Transfer-Encoding: 8bit\r\nContent-Type: multipart/mixed;\r\n boundary="b c"\r\n'
    b"\r\npre\r\n--b c\r\nContent-Type: text/plain\r\ncontent-transfer-encoding: 8BIT\r\n\r\n"
    b"%s\r\n--b c\r\nContent-Type: message/rfc822\r\n\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"\xff\r\n--b c--\r\nend\r\n"
)


@settings(max_examples=100)
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


def test_any_depth() -> None:
    depth = b"Content-Type: message/rfc822\r\n\r\n" * 3000
    assert downgrade(depth + b"x\r\n") == depth + b"x\r\n"


def test_quoted_printable_of_a_long_line() -> None:
    message = b"Content-Transfer-Encoding: 8bit\r\n\r\n" + b"\xe9" * 300_000
    head, _, body = downgrade(message).partition(b"\r\n\r\n")
    assert head == b"Content-Transfer-Encoding: quoted-printable"
    assert quopri.decodestring(body) == b"\xe9" * 300_000
