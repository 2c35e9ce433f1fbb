"""regexp and pcre tables: matching, flags, and the words of warnings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.tables import TableOptions, lookup_now, open_table, open_with
from tests.unit.libmail.tables.recorder import Recorder

BOTH = ["regexp", "pcre"]

# rules, key, result
MATCHES = [
    ("/^abc$/ yes", "ABC", "yes"),
    ("/^abc$/i yes", "ABC", None),
    ("/^b/ yes", "a\nb", None),
    ("/^b/m yes", "a\nb", "yes"),
    ("!/abc/ other", "xyz", "other"),
    ("!/abc/ other", "abc", None),
    ("/(a)(b)?c/ <$1|$2>", "ac", "<a|>"),
    ("/(a)(b)?c/ <$(1)|${2}>$$", "abc", "<a|b>$"),
    ("/a/ one\n/a/ two", "a", "one"),
    ("if /x/\n/a/ in\nendif\n/a/ out", "a", "out"),
    ("if /x/\n/a/ in\nendif\n/a/ out", "ax", "in"),
    ("if !/x/\n/a/ in\nendif\n/a/ out", "ax", "out"),
    ("IF /x/\nif /y/\n/a/ in\nendif\n/a/ mid\nENDIF\n/a/ out", "ax", "mid"),
    ("|a/b| yes", "a/b", "yes"),
    (r"/a\/b/ yes", "a/b", "yes"),
    ("/a/ long\n  text\n# comment\n  more", "a", "long  text  more"),
    ("/^..$/ bytes", "é", "bytes"),
]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("rules", "key", "want"), MATCHES)
def test_match(tmp_path: Path, kind: str, rules: str, key: str, want: str | None) -> None:
    path = tmp_path / "rules"
    path.write_text(rules + "\n")
    assert lookup_now(open_table(f"{kind}:{path}", strict=True), key) == want


# rule of a regexp table, key, result
SECOND = [
    ("/a/!/b/ x", "a", "x"),
    ("/a/!/b/ x", "ab", None),
    ("/a/!!/b/ x", "ab", "x"),
    ("/a/!!/b/ x", "a", None),
    ("!/a/!/b/ x", "c", "x"),
    ("!/a/!/b/ x", "b", None),
    ("/a/i!/B/i x", "aB", None),
    ("/a/i!/B/i x", "ab", "x"),
    ("/(a.)/!/b/ <$1>", "xac", "<ac>"),
    ("/(a.)/!/b/ <$1>", "xab", None),
    ("/a/ !/b/ x", "ab", "!/b/ x"),
]


@pytest.mark.parametrize(("rule", "key", "want"), SECOND)
def test_a_second_pattern_that_must_not_match(rule: str, key: str, want: str | None) -> None:
    assert lookup_now(open_table(f"regexp:{{ {{{rule}}} }}", strict=True), key) == want


NO_GROUPS = [("$0", "0"), ("${0}", "0"), ("$(0)$1", "0"), ("$00", "00")]


@pytest.mark.parametrize(("kind", "words"), [("regexp", "out-of-range"), ("pcre", "out of range")])
@pytest.mark.parametrize(("result", "index"), NO_GROUPS)
def test_the_whole_match_has_no_number(kind: str, words: str, result: str, index: str) -> None:
    log = Recorder()
    table = open_table(f"{kind}:{{ {{/(a)/ {result}}} }}", log=log)
    assert lookup_now(table, "a") is None
    where = f"warning: {kind} map {{ {{/(a)/ {result}}} }}, line 1"
    assert log.lines == [
        f'{where}: {words} replacement index "{index}"',
        f"{where}: bad replacement syntax: skipping this rule",
    ]


def test_flags_of_pcre() -> None:
    assert lookup_now(open_table("pcre:{{/a b/x yes}}"), "ab") == "yes"
    assert lookup_now(open_table("pcre:{{/b/A yes}}"), "ab") is None
    assert lookup_now(open_table("pcre:{{/(a+)/U <$1>}}"), "aa") == "<a>"
    assert lookup_now(open_table("pcre:{{/a$/E yes}}"), "a\n") is None
    assert lookup_now(open_table("pcre:{{/a.b/s yes}}"), "a\nb") is None
    assert lookup_now(open_table("regexp:{{/a+/x yes}}"), "aa") is None


WARNINGS = [
    ("/a(b)c/ $2", 'out of range replacement index "2": skipping this rule'),
    ("/def", 'no closing regexp delimiter "/": %s this rule'),
    ("/a/q x", 'unknown regexp option "q": skipping this rule'),
    ("endif", "ignoring ENDIF without matching IF"),
    ("!/(a)/ $1", "$number found in negative match replacement text: skipping this rule"),
    ("foo bar", "ignoring unrecognized request"),
    ("/a/", "no replacement text: using empty string"),
    ("if", "no regexp: skipping this rule"),
    ("/a/ $x", 'non-numeric replacement index "x"'),
]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("rule", "text"), WARNINGS)
def test_warnings_name_file_and_line(tmp_path: Path, kind: str, rule: str, text: str) -> None:
    path, log = tmp_path / "rules", Recorder()
    path.write_text(f"# comment\n\n{rule}\n/never/ x\n")
    table = open_table(f"{kind}:{path}", log=log)
    expected = text % ("ignoring" if kind == "pcre" else "skipping") if "%s" in text else text
    assert log.lines[0] == f"warning: {kind} map {path}, line 3: {expected}"
    assert lookup_now(table, "never") == "x", "one bad rule does not take the others away"


def test_messages_of_the_libraries(tmp_path: Path) -> None:
    path, log = tmp_path / "rules", Recorder()
    path.write_text("/abc(/ x\n")
    open_table(f"regexp:{path}", log=log)
    open_table(f"pcre:{path}", log=log)
    assert log.lines == [
        f"warning: regexp map {path}, line 1: Unmatched ( or \\(",
        f"warning: pcre map {path}, line 1: "
        "error in regex at offset 4: missing closing parenthesis",
    ]


def test_if_without_endif(tmp_path: Path) -> None:
    path, log = tmp_path / "rules", Recorder()
    path.write_text("if /a/\n/b/ in\n")
    table = open_table(f"regexp:{path}", log=log)
    assert log.lines == [f"warning: regexp map {path}, line 1: IF has no matching ENDIF"]
    assert (lookup_now(table, "b"), lookup_now(table, "ab")) == (None, "in")


def test_pattern_that_would_run_for_ever() -> None:
    log = Recorder()
    table = open_table("pcre:{{/(a+)+$/ slow},{/./ next}}", log=log)
    assert lookup_now(table, "a" * 60 + "!") == "next"
    assert log.lines == [
        "warning: pcre map {{/(a+)+$/ slow},{/./ next}}, line 1: match limit exceeded"
    ]


@pytest.mark.parametrize("kind", BOTH)
@settings(max_examples=60, deadline=None)
@given(
    rules=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
)
def test_any_text_is_parsed_or_warned_about(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rules: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"rules-{kind}"
    path.write_text(rules, newline="")
    lookup_now(open_table(f"{kind}:{path}", log=Recorder()), "some key")


@pytest.mark.parametrize("option", ["sensitive", "literal"])
@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_literal_results_have_no_text_of_the_key(kind: str, option: str) -> None:
    log = Recorder()
    spec = f"{kind}:{{{{/^(.*)@a$/ |$1}} {{/^(b)@/ fixed}}}}"
    sensitive = option == "sensitive"
    options = TableOptions(strict=True, log=log, sensitive=sensitive, literal=not sensitive)
    table = open_with(spec, options)
    assert lookup_now(table, "x@a") is None
    assert lookup_now(table, "b@c") == "fixed"
    assert [line for line in log.lines if "substitution is not allowed" in line] == log.lines
    assert len(log.lines) == 1
