"""Replies as values, and the words of other programs."""

import pytest

from libmail.smtp.reply import Reply, ReplySyntax, parse_reply, reply_text

CASES = [
    (Reply(250, "2.1.0", "Ok"), b"250 2.1.0 Ok\r\n"),
    (Reply(354, "", "End data"), b"354 End data\r\n"),
    (Reply(250, "", "a\nSIZE 1\nDSN"), b"250-a\r\n250-SIZE 1\r\n250 DSN\r\n"),
    (Reply(550, "5.1.1", "no\nway"), b"550-5.1.1 no\r\n550 5.1.1 way\r\n"),
]


@pytest.mark.parametrize(("reply", "wire"), CASES)
def test_wire_and_back(reply: Reply, wire: bytes) -> None:
    assert reply.wire() == wire
    assert parse_reply(wire.decode().split("\r\n")[:-1]) == reply


def test_a_status_of_another_class_is_text() -> None:
    assert parse_reply(["550 4.1.1 odd"]) == Reply(550, "", "4.1.1 odd")


@pytest.mark.parametrize("line", ["", "25", "abc", "999 x", "250x"])
def test_no_reply(line: str) -> None:
    with pytest.raises(ReplySyntax):
        parse_reply([line])


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("550 5.1.1 no", "550 5.1.1 no"),
        ("450 la\0ter", "450 la"),
        ("\0", ""),
        ("a\tb\x1b[2J\r", "a?b?[2J?"),
        ("gr\xfcn \udcff", "gr\xfcn ?"),
        ("x" * 100_000, "x" * (1 << 14)),
    ],
)
def test_text_of_others(said: str, kept: str) -> None:
    assert reply_text(said) == kept
