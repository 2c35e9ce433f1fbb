"""The syntax of master.cf."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.config import ConfigError, read_master_cf
from libmail.config.master_cf import ServiceEntry, parse_master_cf


def one(text: str) -> ServiceEntry:
    (entry,) = parse_master_cf(text, "master.cf")
    return entry


def test_defaults() -> None:
    assert one("smtp unix - - - - - smtp") == ServiceEntry(
        "smtp", "unix", True, True, False, 0, False, None, "smtp", (), (), "master.cf", 1
    )


def test_all_columns() -> None:
    entry = one("# c\n[::1]:2525 inet n n y 300? 7 smtpd -v\n  -o a=b\n# c\n -o { c = d e } x")
    assert (entry.private, entry.unprivileged, entry.chroot) == (False, False, True)
    assert (entry.wakeup, entry.wakeup_if_used, entry.maxproc) == (300, True, 7)
    assert entry.args == ("-v", "x")
    assert entry.overrides == (("a", "b"), ("c", "d e"))
    assert entry.line == 2


@pytest.mark.parametrize(
    ("arguments", "args", "overrides"),
    [
        ("-oa=b", (), (("a", "b"),)),
        ("-o a=", (), (("a", ""),)),
        ("-vo a=b", ("-v",), (("a", "b"),)),
        (
            "-vvoa=b -Do {c = d e} x -vo z",
            ("-vv", "-D", "x", "-vo", "z"),
            (("a", "b"), ("c", "d e")),
        ),
        ("-v - -o a=b", ("-v", "-", "-o", "a=b"), ()),
        ("{ a  b } { c }", ("a  b", "c"), ()),
        ("argv=x {a{b}}", ("argv=x", "a{b}"), ()),
        ("-o { a = { x, y } }", (), (("a", "{ x, y }"),)),
        ("-v -o a=b x -o c=d -oe", ("-v", "x", "-o", "c=d", "-oe"), (("a", "b"),)),
        ("-o a=b -- -o c=d", ("--", "-o", "c=d"), (("a", "b"),)),
    ],
)
def test_arguments(
    arguments: str, args: tuple[str, ...], overrides: tuple[tuple[str, str], ...]
) -> None:
    entry = one(f"s unix - - - - - c {arguments}")
    assert (entry.args, entry.overrides) == (args, overrides)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("s foo n - n - - c", "bad transport type: foo"),
        ("s unix n - n - -", 'missing "command" field'),
        ("s", 'missing "transport type" field'),
        ("s inet q - n - - c", 'field "private": bad value: "q"'),
        ("s inet - - n - - c", "inet service cannot be private"),
        ("s unix n - n 1x - c", 'field "wakeup_time": bad value: "1x"'),
        ("s unix n - n 5?? - c", 'field "wakeup_time": bad value: "5??"'),
        ("s unix n - n - -1 c", 'field "max_proc": bad value: "-1"'),
        ("s unix n - n - - -", 'field "command" has no default value'),
        ("s unix n - n -", 'missing "max_proc" field'),
        ("s unix n - n - - c -o", 'option "-o" requires "name=value"'),
        ("s unix n - n - - c -o x", "-o option \"x\": missing '=' after attribute name"),
        ("s unix n - n - - c {a", "missing '}' in \"{a\""),
        ("s unix n - n - - c {a}b", "syntax error after '}' in \"{a}b\""),
    ],
)
def test_mistakes(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_master_cf(f"# first line\n{text}\n", "master.cf")
    assert str(caught.value) == f"master.cf: line 2: {complaint}"


def test_last_of_duplicates_counts(tmp_path: Path) -> None:
    (tmp_path / "master.cf").write_text(
        "s unix - - - - - a\nt unix - - - - - b\ns unix - - - - - c"
    )
    warnings: list[str] = []
    entries = read_master_cf(str(tmp_path), warnings.append)
    assert [entry.command for entry in entries] == ["b", "c"]
    assert warnings == [
        'duplicate master.cf entry for service "s" (private/s) -- using the last entry'
    ]


@settings(max_examples=200)
@given(st.text(alphabet="s-oinetux 0?{}=#\n\t", max_size=60).map(lambda t: f"s unix - - - {t}"))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        entries = parse_master_cf(text, "F")
    except ConfigError:
        return
    assert all(entry.name for entry in entries)
