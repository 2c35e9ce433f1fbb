"""XFORWARD commands."""

import pytest

from libmail.smtp.client import Extensions
from libmail.smtp.xforward import Source, known_commands, said_to_filter

FULL = Source("host.example", "192.0.2.7", "4711", "ESMTP", "he+lo", "ABC", local=False)
LOCAL = Source("", "", "", "", "", "", local=True)
HIDDEN = Source("unknown", "2001:db8::1", "unknown", "SMTP", "unknown", "", local=False)
ALL = Extensions(
    xforward=frozenset(("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE", "ODD"))
)
CASES = [
    ("full", FULL, ALL, ["NAME=host.example ADDR=192.0.2.7 PORT=4711",
                         "PROTO=ESMTP HELO=he+2Blo IDENT=ABC SOURCE=REMOTE"]),
    ("local", LOCAL, ALL, ["SOURCE=LOCAL"]),
    ("hidden", HIDDEN, ALL, ["ADDR=IPv6:2001:db8::1", "PROTO=SMTP HELO=unknown SOURCE=REMOTE"]),
    ("some", FULL, Extensions(xforward=frozenset(("HELO", "NAME"))),
     ["NAME=host.example", "HELO=he+2Blo"]),
    ("none", FULL, Extensions(), []),
    ("nothing known", LOCAL, Extensions(xforward=frozenset(("NAME",))), []),
    ("long", FULL._replace(helo="x" * 600), ALL,
     ["NAME=host.example ADDR=192.0.2.7 PORT=4711", "PROTO=ESMTP", "HELO=" + "x" * 600,
      "IDENT=ABC SOURCE=REMOTE"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "offered", "want"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_known(source: Source, offered: Extensions, want: list[str]) -> None:
    commands = [line.decode() for _, line in known_commands(source, offered)]
    assert commands == [f"XFORWARD {words}\r\n" for words in want]


def test_to_filter() -> None:
    assert said_to_filter(FULL, ALL) == [
        b"XFORWARD NAME=host.example ADDR=192.0.2.7 PORT=4711 HELO=he+2Blo IDENT=ABC PROTO=ESMTP "
        b"SOURCE=REMOTE\r\n"
    ]


def test_to_filter_unknown() -> None:
    assert said_to_filter(LOCAL, ALL) == [
        b"XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] "
        b"IDENT=[UNAVAILABLE] PROTO=[UNAVAILABLE] SOURCE=LOCAL\r\n"
    ]


def test_no_command_is_longer_than_needed() -> None:
    lines = said_to_filter(FULL._replace(helo="x" * 450), ALL)
    assert [len(line) <= 512 for line in lines] == [True, True]
