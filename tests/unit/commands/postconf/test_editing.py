"""Edits change what was asked for and nothing else, whatever the file looks like, and a crash at
any system call leaves the old file or the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.postconf import main
from commands.postconf.editing import (
    Change,
    edit_main,
    edit_master_entries,
    edit_master_fields,
    edit_master_options,
)
from commands.postconf.master_view import MasterLine, parse_entry
from libmail.config.errors import ConfigError
from libmail.config.main_cf import SPACES, logical_lines, parse_main_cf

NAMES = st.sampled_from(["foo", "bar", "myhostname", "a.b-c", "caf\udce9"])
ENDS = st.sampled_from(["\n", "\n", "\n", "\r\n", " \n"])
WORDS = st.text(st.sampled_from("ab,$#={}\t \v\udcff\xe9"), max_size=8)
COMMENTS = st.sampled_from(["\n", "  \n", "# foo = 1\n", "   # bar\n", "#\n", "\t\r\n"])
CONTINUATIONS = st.builds(lambda text: f"  x{text}\n", WORDS)
SETTINGS = st.builds(
    lambda name, sign, value, end, rest: f"{name}{sign}{value}{end}{''.join(rest)}",
    NAMES,
    st.sampled_from(["=", " = ", "= ", "\t=\t"]),
    WORDS,
    ENDS,
    st.lists(COMMENTS | CONTINUATIONS, max_size=3),
)
TEXTS = st.builds(
    lambda top, parts, cut: top + ("".join(parts)[:-1] if cut else "".join(parts)),
    st.sampled_from(["", "# head\n", "  indented = 1\n"]),
    st.lists(SETTINGS | COMMENTS, max_size=8),
    st.booleans(),
)


def _is_comment(line: str) -> bool:
    return not line.strip(SPACES) or line.lstrip(SPACES).startswith("#")


def _comments(text: str) -> list[str]:
    return [
        line.rstrip("\n") for line in text.split("\n") if line.strip(SPACES) and _is_comment(line)
    ]


def _settings(text: str, without: str) -> list[tuple[str, str]]:
    entries, _ = parse_main_cf(text, "main.cf")
    return [(entry.name, entry.value) for entry in entries if entry.name != without]


@given(TEXTS, NAMES, st.sampled_from(["", "new value", "a=b # c"]))
def test_set(text: str, name: str, value: str) -> None:
    after = edit_main(text, Change.SET, {name: value}, "main.cf")
    assert _settings(after, name) == _settings(text, name)
    assert {v for n, v in _settings(after, "") if n == name} == {value}
    assert _comments(after) == _comments(text)
    assert edit_main(after, Change.SET, {name: value}, "main.cf") == after


@given(TEXTS, NAMES)
def test_remove(text: str, name: str) -> None:
    after = edit_main(text, Change.REMOVE, {name: ""}, "main.cf")
    assert _settings(after, "") == _settings(text, name)
    assert _comments(after) == _comments(text)
    if name not in {n for n, _ in _settings(text, "")}:
        assert after == text


@given(TEXTS, NAMES)
def test_comment_out(text: str, name: str) -> None:
    after = edit_main(text, Change.COMMENT, {name: ""}, "main.cf")
    assert _settings(after, "") == _settings(text, name)
    pairs = zip(text.split("\n"), after.split("\n"), strict=True)
    assert all(new in (old, f"#{old}") for old, new in pairs)


ARGUMENTS = st.sampled_from(
    ["-v", "-o a=b", "-o b=c", "-o { a = x y }", "-oc=1", "argv=/bin/x", "flags=D", "-D"]
)
ENTRIES = st.builds(
    lambda name, kind, chroot, breaks: "".join(
        [f"{name} {kind} n - {chroot} - - x", *breaks, "\n"]
    ),
    st.sampled_from(["smtp", "foo"]),
    st.sampled_from(["inet", "unix"]),
    st.sampled_from("yn-"),
    st.lists(
        st.builds(str.__add__, st.sampled_from([" ", "\n  ", "\n# c\n  ", "\r\n\t"]), ARGUMENTS),
        max_size=4,
    ),
)
MASTERS = st.builds(
    lambda parts, cut: "".join(parts)[:-1] if cut else "".join(parts),
    st.lists(ENTRIES | COMMENTS, max_size=6),
    st.booleans(),
)


def _entries(text: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    lines = [parse_entry(content.strip(SPACES)) for _, content in logical_lines(text)]
    return [(line.fields, line.args) for line in lines]


def _others(text: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [entry for entry in _entries(text) if entry[0][:2] != ("smtp", "inet")]


@given(MASTERS, st.sampled_from(list(Change)))
def test_entries(text: str, change: Change) -> None:
    new = parse_entry("smtp inet n - - - - y -o a=b") if change is Change.SET else None
    after = edit_master_entries(text, change, {("smtp", "inet"): new})
    assert _others(after) == _others(text)
    wanted = [(new.fields, new.args)] if new is not None else []
    assert [e for e in _entries(after) if e[0][:2] == ("smtp", "inet")] == wanted
    if change is not Change.COMMENT:
        assert _comments(after) == _comments(text)


@given(MASTERS)
def test_fields(text: str) -> None:
    after = edit_master_fields(text, [(("smtp", "inet", "chroot"), "y")])
    assert _entries(after) == [
        ((*fields[:4], "y", *fields[5:]) if fields[:2] == ("smtp", "inet") else fields, args)
        for fields, args in _entries(text)
    ]
    assert _comments(after) == _comments(text)


@given(MASTERS, st.sampled_from([None, "new", ""]))
def test_options(text: str, value: str | None) -> None:
    after = edit_master_options(text, [(("smtp", "*", "a"), value)])
    for (fields, args), (fields_after, args_after) in zip(
        _entries(text), _entries(after), strict=True
    ):
        assert fields == fields_after
        if fields[0] != "smtp":
            assert args == args_after
            continue
        before = MasterLine(fields, args).options()
        options = MasterLine(fields_after, args_after).options()
        assert options.pop("a", None) == value
        before.pop("a", None)
        assert options == before
    assert _comments(after) == _comments(text)


def test_entries_that_match_get_the_usual_form() -> None:
    text = "smtp  inet n - y - - smtpd\n\t-vo { a = b }\nother  unix - - n - - smtp\n"
    usual = "smtp       inet  n       -       y       -       -       smtpd -v\n    -o a=b\n"
    after = usual + "other  unix - - n - - smtp\n"
    assert edit_master_options(text, [(("smtp", "inet", "nosuch"), None)]) == after
    assert edit_master_fields(text, [(("smtp", "inet", "chroot"), "y")]) == after


def test_wildcards() -> None:
    text = "a unix - - n - - x\nb inet n - n - - x\nc unix - - n - - x\n"
    assert edit_master_entries(text, Change.REMOVE, {("*", "unix"): None}) == (
        "b inet n - n - - x\n"
    )
    with pytest.raises(ConfigError, match="-Fe does not accept wild-card field name"):
        edit_master_fields(text, [(("a", "unix", "*"), "x")])
    with pytest.raises(ConfigError, match="does not accept whitespace in non-command field"):
        edit_master_fields(text, [(("a", "unix", "service"), "x y")])


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(tmp_path), "-e", "foo=2"]) == 1
    complaint = f"open {tmp_path}/main.cf for reading: No such file or directory"
    assert capsys.readouterr().err == f"postconf: fatal: {complaint}\n"
    assert not list(tmp_path.iterdir())
