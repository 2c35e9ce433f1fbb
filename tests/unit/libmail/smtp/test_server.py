"""The server side of SMTP: lines and content out of a stream."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.smtp.server import (
    BareNewline,
    Command,
    Content,
    EndOfChunk,
    EndOfData,
    Event,
    SmtpServerCore,
)

LIMIT = 40


def follow(core: SmtpServerCore, event: Event) -> None:
    """Do what a server does that takes everything."""
    if isinstance(event, Command):
        words = event.line.upper().split()
        if words[:1] == [b"DATA"]:
            core.begin_data()
        elif words[:1] == [b"BDAT"] and len(words) > 1 and words[1].isdigit():
            size = min(int(words[1]), 50)
            core.begin_chunk(size, first=True, last=words[2:] == [b"LAST"])


def run(chunks: list[bytes], newlines: BareNewline) -> list[Event]:
    core = SmtpServerCore(LIMIT, newlines)
    events: list[Event] = []
    for chunk in chunks:
        core.receive_data(chunk)
        while (event := core.next_event()) is not None:
            follow(core, event)
            if events and isinstance(event, Content) and isinstance(events[-1], Content):
                events[-1] = Content(events[-1].data + event.data)
            else:
                events.append(event)
        assert len(core.peek(1 << 20)) <= LIMIT + 10
    return events


def data(content: bytes, newlines: BareNewline = BareNewline.NORMALIZE) -> list[Event]:
    return run([b"DATA\r\n" + content], newlines)[1:]


CASES = {
    "empty": (b".\r\n", []),
    "one line": (b"a\r\n.\r\n", [b"a\r\n"]),
    "stuffed": (b"..\r\n...x\r\n.y\r\n.\r\n", [b".\r\n..x\r\ny\r\n"]),
    "empty lines": (b"\r\n\r\n.\r\n", [b"\r\n\r\n"]),
    "no dot at line start": (b"a.\r\nb.c\r\n.\r\n", [b"a.\r\nb.c\r\n"]),
    "CR in a line": (b"a\rb\r\r\n.\r\n", [b"a\rb\r\r\n"]),
    "NUL": (b"\0\r\n.\r\n", [b"\0\r\n"]),
}


@pytest.mark.parametrize(("wire", "content"), CASES.values(), ids=CASES)
def test_content(wire: bytes, content: list[bytes]) -> None:
    assert data(wire) == [*map(Content, content), EndOfData(False)]


@pytest.mark.parametrize("newlines", BareNewline)
def test_commands(newlines: BareNewline) -> None:
    events = run([b"NOOP\r\nRSET\n", b"QU", b"IT\r", b"\n\r\n"], newlines)
    lines = [(b"NOOP", False), (b"RSET", True), (b"QUIT", False), (b"", False)]
    assert events == [Command(*line) for line in lines]


def test_a_long_line_is_cut_and_its_rest_dropped() -> None:
    events = run([b"A" * 30, b"A" * 30, b"A" * 300, b"\r\nNOOP\r\n"], BareNewline.NORMALIZE)
    assert events == [Command(b"A" * LIMIT, False, too_long=True), Command(b"NOOP", False)]
    events = run([b"A" * 60 + b"\r\nNOOP\r\n"], BareNewline.NORMALIZE)
    assert events == [Command(b"A" * LIMIT, False, too_long=True), Command(b"NOOP", False)]


def test_a_line_ends_at_a_nul() -> None:
    assert run([b"NO\0OP\r\n"], BareNewline.NORMALIZE) == [Command(b"NO", False)]


def test_what_follows_the_content_is_a_command() -> None:
    events = data(b"a\r\n.\r\nQUIT\r\n")
    assert events == [Content(b"a\r\n"), EndOfData(False), Command(b"QUIT", False)]


CHUNKS = {
    "last": (b"BDAT 4 LAST\r\na\r\nbQUIT\r\n", [Content(b"a\r\nb\r\n"), EndOfChunk(False)]),
    "no dots taken off": (
        b"BDAT 5 LAST\r\n.\r\n\r\nQUIT\r\n",
        [Content(b".\r\n\r\n"), EndOfChunk(False)],
    ),
    "bare newline": (b"BDAT 4 LAST\r\na\nb\nQUIT\r\n", [Content(b"a\r\nb\r\n"), EndOfChunk(True)]),
    "none": (b"BDAT 0 LAST\r\nQUIT\r\n", [EndOfChunk(False)]),
    "not last": (b"BDAT 2\r\nabQUIT\r\n", [Content(b"ab"), EndOfChunk(False)]),
}


@pytest.mark.parametrize(("wire", "want"), CHUNKS.values(), ids=CHUNKS)
def test_chunks(wire: bytes, want: list[Event]) -> None:
    assert run([wire], BareNewline.NORMALIZE)[1:] == [*want, Command(b"QUIT", False)]


def test_a_line_end_across_chunks() -> None:
    core = SmtpServerCore(LIMIT)
    core.begin_chunk(2, first=True, last=False)
    core.receive_data(b"a\rB")
    assert [core.next_event(), core.next_event()] == [Content(b"a"), EndOfChunk(False)]
    core.reset()
    core.begin_chunk(2, first=True, last=False)
    core.receive_data(b"a\r")
    assert [core.next_event(), core.next_event()] == [Content(b"a"), EndOfChunk(False)]
    core.begin_chunk(2, first=False, last=True)
    core.receive_data(b"\nb")
    events = [core.next_event(), core.next_event(), core.next_event()]
    assert events == [Content(b"\r\nb"), Content(b"\r\n"), EndOfChunk(False)]


PIECES = [b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.\r\n", b"\n.\n", b"DATA\r\n", b"\0"]
PIECES += [b"BDAT 7\r\n", b"BDAT 3 LAST\r\n", b"x" * 45, b"\xff"]


@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join),
    st.lists(st.integers(1, 9), max_size=100),
    st.sampled_from(BareNewline),
    st.booleans(),
)
@settings(max_examples=400)
def test_chunking_is_invisible(
    stream: bytes, sizes: list[int], newlines: BareNewline, in_data: bool
) -> None:
    if in_data:
        stream = b"DATA\r\n" + stream
    chunks, rest = [], stream
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    chunks.append(rest)
    # what is held back at the end is told apart by an end of the data
    tail = b"\r\n.\r\n" * 12
    assert run([*chunks, tail], newlines) == run([stream + tail], newlines)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
@settings(max_examples=200)
def test_content_is_in_wire_form(stream: bytes) -> None:
    events = run([b"DATA\r\n" + stream + b"\r\n.\r\n"], BareNewline.NORMALIZE)
    for event in events:
        if isinstance(event, Content):
            assert event.data.count(b"\n") == event.data.count(b"\r\n")


def test_nothing_is_kept_for_a_client_that_is_silent() -> None:
    core = SmtpServerCore(LIMIT)
    commands = b"".join([b"NOOP %d\r\n" % number for number in range(3)])
    held = sys.getrefcount(commands)
    core.receive_data(commands)
    for _ in range(3):
        assert isinstance(core.next_event(), Command)
    assert core.next_event() is None
    assert sys.getrefcount(commands) == held
    core.begin_data()
    assert core.next_event() is None
    core.receive_data(b"text\r\n.\r\n")
    assert core.next_event() == Content(b"text\r\n")
    assert core.next_event() == EndOfData(False)
    assert core.next_event() is None
    core.begin_chunk(0, first=True, last=False)
    assert core.next_event() == EndOfChunk(False)
