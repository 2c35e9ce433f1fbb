"""What scanning content finds out, wherever it is cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.message.content import ContentScan, StrayFilter
from libmail.message.line_endings import LineEndings

CONTENT = st.lists(
    st.sampled_from([b"\r\n", b".", b"a", b"\xe4", b"x" * 997, b"x" * 998, b"\r", b"\n", b"y" * 3])
).map(b"".join)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(CONTENT, st.sampled_from([1, 2, 3, 500, 999, 100_000]))
@settings(max_examples=300, deadline=None)
def test_scan_sees_what_a_loop_over_lines_sees(data: bytes, size: int) -> None:
    data = StrayFilter().feed(data)
    scan = ContentScan()
    for piece in pieces(data, size):
        scan.feed(piece)
    lines = data.split(b"\r\n")
    assert scan.dots == any(line.startswith(b".") for line in lines)
    assert scan.eightbit == (not data.isascii())
    if all(len(line) != 999 for line in lines[-1:]):  # its end decides
        assert scan.long_lines == any(len(line) > 998 for line in lines)


@given(CONTENT, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_no_line_end_but_crlf(data: bytes, size: int) -> None:
    stray = StrayFilter()
    out = b"".join([stray.feed(piece) for piece in pieces(data, size)]) + stray.end()
    assert len(out) == len(data)
    assert out.count(b"\r\n") == out.count(b"\r") == out.count(b"\n")


@given(st.text(alphabet="a\r\n").map(str.encode), st.integers(1, 5))
def test_local_input_gets_wire_form(data: bytes, size: int) -> None:
    endings = LineEndings()
    out = b"".join([endings.feed(piece) for piece in pieces(data, size)]) + endings.end()
    assert out.count(b"\n") == out.count(b"\r\n")
    assert not out or out.endswith(b"\r\n")
    assert out == b"" or out[:-2].replace(b"\r\n", b"\n").startswith(
        data.replace(b"\r\n", b"\n").removesuffix(b"\n")[: len(out) // 2]
    )
