"""Sources of tables: logical lines, entries, aliases, lists with braces, keys of messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.net.cache import ExpiringCache
from libmail.tables.braces import split_list, strip_braces
from libmail.tables.building.alias_source import parse_alias
from libmail.tables.building.message_keys import BODY, HEADER, message_keys
from libmail.tables.entries import EntryError, split_entry
from libmail.tables.lines import logical_lines
from libmail.tables.registry import open_with
from libmail.tables.table import TableOptions, lookup_now
from tests.unit.libmail.tables.recorder import Recorder

LINES = [
    ("a 1\nb 2\n", [(1, "a 1"), (2, "b 2")]),
    ("a 1\n  more\n", [(1, "a 1  more")]),
    ("# c\n\na 1\n# c\n  # c\n\n\tmore\nb", [(3, "a 1\tmore"), (8, "b")]),
    ("  first\n", [(1, "  first")]),
    ("   \n\t\n", []),
]


@pytest.mark.parametrize(("text", "want"), LINES)
def test_logical_lines(text: str, want: list[tuple[int, str]]) -> None:
    assert list(logical_lines(text.splitlines(keepends=True))) == want


ENTRIES = [
    ("key value", ("key", "value")),
    ("key \t two  words ", ("key", "two  words")),
    ("key", ("key", "")),
    ('"a b" v', ('"a b"', "v")),
    ('"a b"@c v', ('"a b"@c', "v")),
    ('pl"a b"c v', ('pl"a b"c', "v")),
    (r'"x\"y" v', (r'"x\"y"', "v")),
]


@pytest.mark.parametrize(("line", "want"), ENTRIES)
def test_split_entry(line: str, want: tuple[str, str]) -> None:
    assert split_entry(line) == want


def test_unbalanced_quote() -> None:
    with pytest.raises(EntryError, match="unbalanced '\"' in 'pl\"q v' -- ignoring this line"):
        split_entry('pl"q v')


ALIASES = [
    ("root: alice", ("root", "alice")),
    ("team: alice, bob,\tcarol", ("team", "alice, bob, carol")),
    ('cmd: "|/bin/cmd with args"', ("cmd", '"|/bin/cmd with args"')),
    ("file: /var/mail/x", ("file", "/var/mail/x")),
    ("incl: :include:/etc/list", ("incl", ":include:/etc/list")),
    ("space : bob", ("space", "bob")),
    (r"esc\aped: bob", ("escaped", "bob")),
    ('"quo ted": x', ('"quo ted"', "x")),
    ('"plain": x', ('"plain"', "x")),
    ('"pl ain".x : "x"', ('"pl ain".x', '"x"')),
    ("a: b: c", ("a", "b:c")),
    ("c (comment): x (y)", ("c (comment)", "x (y)")),
    ('list: a (c1) b, "q r"@s <t@u>', ("list", 'a (c1) b, "q r"@s <t@u>')),
    ("k: a ! b % c . d @ e", ("k", "a!b%c.d@e")),
    ("k: a [x y] b <x> y", ("k", "a [x y] b <x>y")),
    (r'k: "a\b" \"x \  y\,z', ("k", r'"ab" "\"x" " " "y,z"')),
    (r"k: [a\]b] (x (nested) \) y)", ("k", r"[a]b] (x (nested) \) y)")),
    ("k: (unterminated", ("k", "(unterminated")),
    ('k: ""', ("k", '""')),
    ("k: a,b , c", ("k", "a, b, c")),
    ("k: é", ("k", "é")),
    ("k: a \xa0 b\x85c", ("k", "a \xa0 b\x85c")),
    ("k: a\x1bb a\x7f a\vb", ("k", '"a\x1bb" "a\x7f" "a\vb"')),
    (r"k: a [x\\y] [z", ("k", r"a [x\\y] [z]")),
    ('k: "a\rb"', ("k", '"a\\\rb"')),
]


@pytest.mark.parametrize(("line", "want"), ALIASES, ids=[case[0] for case in ALIASES])
def test_parse_alias(line: str, want: tuple[str, str]) -> None:
    assert parse_alias(line) == want


BAD_ALIASES = [
    ("nocolon value", "need name:value pair"),
    ("empty:", "need name:value pair"),
    (":x", "need name:value pair"),
    ('"un: x', "need name:value pair"),
    ("a@example.org: x", "name must be local and have no domain"),
]


@pytest.mark.parametrize(("line", "text"), BAD_ALIASES)
def test_bad_alias(line: str, text: str) -> None:
    with pytest.raises(EntryError, match=text):
        parse_alias(line)


@settings(max_examples=300)
@given(st.text('ab "\\()<>[]@,:;.|\t', max_size=30))
def test_the_normal_form_of_an_alias_is_stable(line: str) -> None:
    try:
        name, value = parse_alias(line)
    except EntryError:
        return
    if "(" in line or "[" in line or value.strip() == "":
        return  # comments and literals may lack their end
    assert parse_alias(f"x: {value}")[1] == value
    assert ":" in name or parse_alias(f"{name}: x")[0] == name


LISTS = [
    ("a, b\tc\n d", ["a", "b", "c", "d"]),
    ("inline:{ {k = v}, x=y } b", ["inline:{ {k = v}, x=y }", "b"]),
    ("{a b} {c}", ["{a b}", "{c}"]),
    ("a{b", ["a{b"]),
    ("", []),
]


@pytest.mark.parametrize(("text", "want"), LISTS)
def test_split_list(text: str, want: list[str]) -> None:
    assert split_list(text) == want


@given(st.lists(st.text("abc:/", min_size=1)))
def test_a_list_survives_joining(items: list[str]) -> None:
    assert split_list(" , ".join(items)) == items


def test_strip_braces() -> None:
    assert strip_braces("{ a {b} }") == "a {b}"
    for text, problem in (("a", "no '{'"), ("{a", "missing '}'"), ("{a}b", "syntax error")):
        with pytest.raises(ValueError, match=problem):
            strip_braces(text)


MULTIPART_TEXT = """\
Subject: yes
Content-Type: multipart/mixed; boundary="xx"

pre
--xx
Content-Type: text/plain
X: y
 z

one
--xx
Content-Type: message/rfc822

Subject: in

inner
--xx--
end"""
MULTIPART = MULTIPART_TEXT.split("\n")
MIME_HEADERS = [
    "Subject: yes",
    'Content-Type: multipart/mixed; boundary="xx"',
    "Content-Type: text/plain",
    "X: y\n z",
    "Content-Type: message/rfc822",
    "Subject: in",
]
MIME_BODY = ["", "pre", "--xx", "", "one", "--xx", "", "", "inner", "--xx--", "end"]
KEYS = [
    (MULTIPART, True, HEADER, MIME_HEADERS),
    (MULTIPART, True, BODY, MIME_BODY),
    (MULTIPART, False, HEADER, MIME_HEADERS[:2]),
    (MULTIPART, False, BODY, MULTIPART[2:]),
    (["no header", "x"], True, HEADER, []),
    (["no header", "x"], True, BODY, ["", "no header", "x"]),
    (["A: b"], False, HEADER, ["A: b"]),
    ([], False, BODY, []),
]


@pytest.mark.parametrize(("lines", "mime", "kind", "want"), KEYS)
def test_message_keys(lines: list[str], mime: bool, kind: str, want: list[str]) -> None:
    assert [key for found, key in message_keys(lines, mime=mime) if found == kind] == want


@given(
    st.lists(st.sampled_from([*MULTIPART, "--yy", "Content-Type: multipart/x; boundary=yy", " c"]))
)
def test_every_line_of_a_message_is_in_a_key(lines: list[str]) -> None:
    keys = [key for _, key in message_keys(lines, mime=True)]
    told = [line for key in keys for line in key.split("\n")]
    assert told == lines or sorted(told) == sorted(["", *lines])


def test_cache_forgets() -> None:
    now = [0.0]
    cache: ExpiringCache[str, int] = ExpiringCache(2, 10.0, lambda: now[0])
    cache.put("a", 1)
    cache.put("b", 2, life=1.0)
    assert (cache.get("a"), cache.get("b")) == (1, 2)
    now[0] = 1.0
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)
    cache.put("c", 3)
    cache.put("d", 4)
    assert (cache.get("a"), cache.get("c"), cache.get("d")) == (None, 3, 4)
    cache.put("e", 5, life=0)
    assert cache.get("e") is None
    cache.clear()
    assert len(cache) == 0


def test_a_source_that_begins_with_white_space(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_text(f"\n  {'x' * 40} y\n more\n\n  other\nz w\n  v\n")
    log = Recorder()
    table = open_with(f"texthash:{path}", TableOptions(log=log))
    assert lookup_now(table, "z") == "w  v"
    assert lookup_now(table, "other") is None
    assert log.lines == [
        f'warning: {path}: logical line must not start with whitespace: "  {"x" * 28}..."'
    ]
