"""What one server takes for one message, the next one must not take for two.

A message is fed as content in all spellings of an end that are not one; what we would send on is
then read again, the way that careful and careless servers read it.
"""

import re
from itertools import product

import pytest

from libmail.smtp.server import BareNewline, Command, Content, EndOfData, SmtpServerCore

HIDDEN = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<x@example.test>\r\nDATA\r\nhidden\r\n"
BEFORE = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n"]
AFTER = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n"]
FALSE_ENDS = [
    before + b"." + after
    for before, after in product(BEFORE, AFTER)
    if not (before.endswith(b"\r\n") and after == b"\r\n")
]


def receive(wire: bytes, size: int) -> tuple[bytes, list[bytes]]:
    """(content, commands after it) of what follows DATA, fed in pieces."""
    core = SmtpServerCore(2048, BareNewline.NORMALIZE)
    core.begin_data()
    content, commands, ended = b"", [], 0
    for start in range(0, len(wire), size):
        core.receive_data(wire[start : start + size])
        while (event := core.next_event()) is not None:
            if isinstance(event, Content):
                content += event.data
            elif isinstance(event, EndOfData):
                ended += 1
            elif isinstance(event, Command):
                commands.append(event.line)
    assert ended == 1
    return content, commands


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("end", FALSE_ENDS, ids=repr)
def test_only_the_right_end_ends(end: bytes, size: int) -> None:
    wire = b"Subject: x\r\n\r\nfirst" + end + HIDDEN + b".\r\n"
    content, commands = receive(wire, size)
    assert commands == []
    assert b"hidden" in content
    stuffed = content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert stuffed.find(b"\r\n.\r\n") == len(stuffed) - 5
    # a server that takes LF "." LF for an end finds none either
    assert not re.search(rb"\n\.\r?\n", stuffed[:-5])


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_a_line_feed_before_the_true_end(size: int) -> None:
    content, commands = receive(b"a\n\r\n.\r\nQUIT\r\n", size)
    assert (content, commands) == (b"a\r\n\r\n", [b"QUIT"])


@pytest.mark.parametrize("size", [1, 2, 10_000])
def test_carriage_returns_do_not_make_an_end(size: int) -> None:
    content, commands = receive(b"X\r\r\n.\n.\r\nhidden\r\n.\r\n", size)
    assert (content, commands) == (b"X\r\r\nhidden\r\n", [])
