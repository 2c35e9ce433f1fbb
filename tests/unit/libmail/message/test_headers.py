import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.message.headers import fields, scan


@pytest.mark.parametrize(
    ("data", "names", "end", "complete"),
    [
        (b"A: b\r\nC: d\r\n\r\nbody\r\n", [b"a", b"c"], 12, True),
        (b"A: b\r\n folded\r\n\r\n", [b"a"], 15, True),
        (b"A : obsolete\r\n\r\n", [b"a"], 14, True),
        (b"A: b\r\nno field\r\n", [b"a"], 6, True),
        (b"\r\nbody", [], 0, True),
        (b" blank\r\n", [], 0, True),
        (b"A: b\r\n", [], 0, False),
        (b"A: b\r\nC", [], 0, False),
        (b"A: b\r\n ", [], 0, False),
        (b"", [], 0, False),
        (b":no name\r\n", [], 0, True),
    ],
)
def test_scan(data: bytes, names: list[bytes], end: int, complete: bool) -> None:
    found = scan(data)
    assert ([field.name for field in found.fields], found.end, found.complete) == (
        names, end, complete,
    )  # fmt: skip


HEADERISH = st.text(alphabet="Aa: \t\n-x").map(lambda text: text.replace("\n", "\r\n").encode())


@given(HEADERISH, st.integers(1, 9))
@settings(max_examples=300)
def test_pieces_make_no_difference(data: bytes, size: int) -> None:
    whole = scan(data + b"\r\n\r\nA: b\r\n")
    seen, at = [], 0
    data += b"\r\n\r\nA: b\r\n"
    for length in range(size, len(data) + size, size):
        found, at, complete = scan(data[:length], at)
        seen += found
        if complete:
            break
    assert (seen, at) == (whole.fields, whole.end)


@given(st.binary())
def test_fields_follow_each_other(data: bytes) -> None:
    at = 0
    for field in fields(data):
        assert field.start == at < field.value <= field.end
        at = field.end
