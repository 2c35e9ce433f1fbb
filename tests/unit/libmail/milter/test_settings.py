"""smtpd_milters and the lists of macros."""

from __future__ import annotations

from dataclasses import replace

import pytest

from libmail.milter.macros import encode_macros, macro_names, parse_defaults
from libmail.milter.settings import MilterSettings, parse_milters

DEFAULTS = MilterSettings("", 30, 31, 300, "shutdown", "6")


def test_milters() -> None:
    assert parse_milters(
        ["inet:h:1", "{ unix:a/b, connect_timeout = 2m, default_action=Accept, protocol=2 }"],
        DEFAULTS,
    ) == [
        MilterSettings("inet:h:1", 30, 31, 300, "shutdown", "6"),
        MilterSettings("unix:a/b", 120, 31, 300, "Accept", "2"),
    ]
    assert parse_milters(["x"], replace(DEFAULTS, protocol="2, no_body"))[0].version == 2


@pytest.mark.parametrize(
    "text",
    [
        "{ inet:h:1, what=1 }",
        "{ inet:h:1, connect_timeout=x }",
        "{ inet:h:1, protocol=5 }",
        "{ inet:h:1",
    ],
)
def test_mistakes(text: str) -> None:
    with pytest.raises(ValueError, match=r"[Mm]ilter|time|\\}"):
        parse_milters([text], DEFAULTS)


def test_macros() -> None:
    assert macro_names("i, {mail_addr} j mail_host") == (
        ("i", "i"), ("mail_addr", "{mail_addr}"), ("j", "j"), ("mail_host", "{mail_host}"),
    )  # fmt: skip
    known = {"i": "QID", "mail_addr": "a@b"}
    names = macro_names("i {mail_addr} j v")
    assert encode_macros(names, known.get, {"j": "host", "i": "none"}) == (
        b"i\0QID\0{mail_addr}\0a@b\0j\0host\0"
    )
    assert parse_defaults(["{a}=1", "{ b = 2 3 }"]) == {"a": "1", "b": "2 3"}
    with pytest.raises(ValueError, match="malformed"):
        parse_defaults(["x"])
