"""What is done to content before anything looks at it, wherever its pieces end."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.cleanup.raw import Stage, characters
from daemons.cleanup.status import Refused
from libmail.ipc.messages import CleanupFlag, Envelope, QueueId
from tests.unit.daemons.cleanup.conftest import make_raw

ENVELOPE = Envelope(sender="a@b.test", helo_name="h", protocol_name="ESMTP")
FLAGS = int(CleanupFlag.FILTER)


def begun(flags: int = FLAGS, **changes: object) -> Stage:
    return make_raw(**changes).begin(flags, ENVELOPE, "c@d.test", QueueId("1A"))


def passed(stage: Stage, pieces: Iterable[bytes]) -> bytes:
    return b"".join(map(stage.feed, pieces)) + stage.end()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ab", {b"a", b"b"}),
        (r"\0", {b"\0"}),
        (r"\000\0019\177", {b"\0", b"\1", b"9", b"\x7f"}),
        (r"\a\b\f\t\v\\", {b"\a", b"\b", b"\f", b"\t", b"\v", b"\\"}),
        (r"\]^-[", {b"]", b"^", b"-", b"["}),
        (r"\q", {b"q"}),
        (r"\777", {b"\xff"}),
    ],
)
def test_characters(text: str, found: set[bytes]) -> None:
    pattern = characters(text)
    assert pattern is not None
    octets = bytes(range(256))
    assert set(pattern.findall(octets)) == found


def test_no_characters() -> None:
    assert characters("") is None


def test_line_ends_are_none_of_the_characters() -> None:
    pattern = characters(r"\r\n")
    assert pattern is not None
    assert pattern.sub(b"-", b"a\r\nb\nc\rd\r\n") == b"a\r\nb-c-d\r\n"


@pytest.mark.parametrize("at", range(1, 12))
def test_strip(at: int) -> None:
    data = b"a\0: b\r\n\r\nx\0\0\r\n"
    stage = begun(message_strip_characters=r"\0\r", cleanup_replace_stray_cr_lf=False)
    assert passed(stage, (data[:at], data[at:])) == b"a: b\r\n\r\nx\r\n"


def test_reject() -> None:
    stage = begun(message_reject_characters=r"\1")
    stage.feed(b"a: b\r\n")
    with pytest.raises(Refused) as refused:
        stage.feed(b"c: \1\r\n\r\nd\1\r\n")
    assert (refused.value.dsn, refused.value.reason) == ("5.7.1", "disallowed character")


def test_reject_is_for_the_end_where_mail_goes_back() -> None:
    stage = begun(FLAGS | CleanupFlag.BOUNCE, message_reject_characters=r"\1")
    assert stage.feed(b"c: \1\r\n\r\nd\1\r\n") == b"c: \1\r\n\r\nd\1\r\n"
    with pytest.raises(Refused):
        stage.end()


def test_mail_that_is_not_filtered() -> None:
    stage = begun(0, message_reject_characters=r"\1", message_strip_characters="x")
    assert passed(stage, [b"a: x\1\r\n"]) == b"a: x\1\r\n"


EIGHTBIT = (
    b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4=\r\n--b\r\n\r\n"
    b"\xe4, not declared\r\n--b--\r\n"
)
SEVENBIT = (
    b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
    b"Content-Transfer-Encoding: 7bit\r\n\r\n--b\r\n"
    b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E4=3D\r\n"
    b"--b\r\n\r\n\xe4, not declared\r\n--b--\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_conversion(size: int) -> None:
    stage = begun(force_mime_input_conversion=True)
    pieces = [EIGHTBIT[at : at + size] for at in range(0, len(EIGHTBIT), size)]
    assert passed(stage, pieces) == SEVENBIT


@pytest.mark.parametrize(
    "data", [b"Subject: x\r\n", b"\r\nbody\r\n", b"no header\r\n", b"a: b\r\nc"]
)
def test_conversion_leaves_other_mail_alone(data: bytes) -> None:
    assert passed(begun(force_mime_input_conversion=True), [data]) == data


def test_no_conversion_without_mime() -> None:
    stage = begun(force_mime_input_conversion=True, disable_mime_input_processing=True)
    assert passed(stage, [EIGHTBIT]) == EIGHTBIT


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_pieces_make_no_difference(pieces: list[bytes]) -> None:
    def result(*data: bytes) -> bytes:
        stage = begun(
            message_strip_characters=r"\r\n\0ab",
            cleanup_replace_stray_cr_lf=False,
            force_mime_input_conversion=True,
        )
        return passed(stage, data)

    assert result(*pieces) == result(b"".join(pieces))
