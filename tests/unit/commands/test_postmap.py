"""postmap and postalias as commands: output, warnings, exit status, files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import postalias, postmap
from libmail.config import Config
from libmail.log import LOG
from libmail.tables import TableOptions, open_with
from libmail.tables.building import command_line
from libmail.tables.table import TableConfigError

Run = Callable[..., tuple[int, str, str]]

SOURCE = """\
# comment
key1 value one
key2   value   two
Upper UPPER value
long continued
  on the next line
key1 again
onlykey
weird: colon
"quoted key" value
"unbalanced x
"""
WARNINGS = """\
postmap: warning: source, line 8: expected format: key whitespace value
postmap: warning: source, line 9: record is in "key: value" format; is this an alias file?
postmap: warning: source, line 11: unbalanced '"' in '"unbalanced x' -- ignoring this line
"""
DUPLICATE = 'postmap: warning: lmdb:source: duplicate entry: "key1"\n'
LISTING = """\
"quoted key"\tvalue
key1\tvalue one
key2\tvalue   two
long\tcontinued  on the next line
upper\tUPPER value
weird:\tcolon
"""


class Standard:
    """Stands for sys.stdin and sys.stdout, which have a text and a byte side."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def fileno(self) -> int:
        return 1


def only_standard_error(config: Config, name: str, *, echo: bool, alone: bool) -> None:
    LOG.open(lambda severity, head, text: None, name, echo=echo)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "source").write_text(SOURCE)
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "open_log", only_standard_error)

    def command(*argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
        out, err = Standard(), io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", Standard(stdin))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            program = postalias.main if argv[0] == "postalias" else postmap.main
            status = program(argv[1:])
        return status, out.buffer.getvalue().decode("utf-8", "surrogateescape"), err.getvalue()

    yield command
    LOG.open(lambda severity, head, text: None, "postfix")


def test_build_and_list(run: Run) -> None:
    status, out, err = run("postmap", "lmdb:source")
    assert (status, out) == (0, "")
    assert sorted(err.splitlines()) == sorted((DUPLICATE + WARNINGS).splitlines())
    assert run("postmap", "-s", "lmdb:source") == (0, LISTING, "")


@pytest.mark.parametrize(
    ("flag", "want", "duplicate"), [("-w", "value one", ""), ("-r", "again", "")]
)
def test_duplicates(run: Run, flag: str, want: str, duplicate: str) -> None:
    status, _, err = run("postmap", flag, "lmdb:source")
    assert (status, err) == (0, WARNINGS + duplicate)
    assert run("postmap", "-q", "key1", "lmdb:source") == (0, f"{want}\n", "")


QUERIES = [
    (("-q", "KEY2"), b"", 0, "value   two\n"),
    (("-q", "nothing"), b"", 1, ""),
    (("-fq", "KEY2"), b"", 1, ""),
    (("-q", '"quoted key"'), b"", 0, "value\n"),
    (
        ("-q", "-"),
        b"key1\nnothing\nLONG\n",
        0,
        "key1\tvalue one\nLONG\tcontinued  on the next line\n",
    ),
    (("-q", "-"), b"nothing\n", 1, ""),
    (("-jq", "key1"), b"", 0, '{"key1": "value one"}\n'),
]


@pytest.mark.parametrize(("options", "stdin", "status", "out"), QUERIES)
def test_query(run: Run, options: tuple[str, ...], stdin: bytes, status: int, out: str) -> None:
    run("postmap", "source")
    assert run("postmap", *options, "lmdb:source", stdin=stdin) == (status, out, "")


def test_cdb(run: Run) -> None:
    status, out, err = run("postmap", "cdb:source")
    assert (status, out) == (0, "")
    assert sorted(err.splitlines()) == sorted(
        (DUPLICATE.replace("lmdb:", "cdb:") + WARNINGS).splitlines()
    )
    plain = Path("source.cdb").read_bytes()
    assert b"key1value one" in plain
    assert run("postmap", "-q", "KEY2", "cdb:source") == (0, "value   two\n", "")
    run("postmap", "-N", "cdb:source")
    assert b"key1\0value one\0" in Path("source.cdb").read_bytes()
    assert run("postmap", "-q", "KEY2", "cdb:source") == (0, "value   two\n", "")
    for flags in (["-i"], ["-d", "key1"]):
        assert run("postmap", *flags, "cdb:source")[2] == (
            "postmap: fatal: cdb:source: a cdb file can only be made as a whole\n"
        )
    assert run("postmap", "-s", "cdb:source")[0] == 1


def test_delete(run: Run) -> None:
    run("postmap", "source")
    assert run("postmap", "-d", "KEY2", "source")[0] == 0
    assert run("postmap", "-d", "key2", "source")[0] == 1
    assert run("postmap", "-d", "-", "source", stdin=b"key1\nnope\n")[0] == 0
    assert run("postmap", "-q", "key1", "source")[0] == 1
    assert run("postmap", "-d", "x", "lmdb:missing") == (1, "", "")


def test_add(run: Run) -> None:
    run("postmap", "source")
    assert run("postmap", "-i", "source", stdin=b"new one\n") == (0, "", "")
    warning = 'postmap: warning: lmdb:source: duplicate entry: "new"\n'
    assert run("postmap", "-i", "source", stdin=b"new two\n") == (0, "", warning)
    assert run("postmap", "-q", "new", "source")[1] == "one\n"
    assert run("postmap", "-ir", "source", stdin=b"new three\n") == (0, "", "")
    assert run("postmap", "-q", "new", "source")[1] == "three\n"
    assert run("postmap", "-iw", "source", stdin=b"new four\n") == (0, "", "")
    bad = "postmap: warning: stdin, line 1: expected format: key whitespace value\n"
    assert run("postmap", "-i", "lmdb:other", stdin=b"bad\nok 1\n") == (0, "", bad)
    assert run("postmap", "-s", "lmdb:other") == (0, "ok\t1\n", "")


FATAL = [
    (("lmdb:missing",), "open missing: No such file or directory"),
    (
        ("regexp:source",),
        "no 'map create' support for this type: regexp",
    ),
    (
        ("foo:source",),
        "unsupported map type: foo",
    ),
    (("-q", "x", "foo:source"), "unsupported dictionary type: foo"),
    (("-q", "x", "lmdb:none"), "open database none.lmdb: No such file or directory"),
    (("-q", "x", "fail:y"), "table fail:y: query error: Application error"),
    (("-s", "fail:y"), "table fail:y: sequence error: Application error"),
    (("-s", "static:y"), "table static:y: sequence operation is not supported"),
    (("-d", "x", "static:y"), "table static:y: delete operation is not supported"),
    (("-q", "a", "-d", "b", "source"), "specify only one of -s -q or -d"),
    (("-q", "a", "-q", "b", "source"), "specify only one of -s -q or -d"),
    (("-q", "a", "-s", "source"), "specify only one of -s or -q or -d"),
    (("-d", "a", "inline:{a=b}"), "inline:{a=b} map requires O_RDONLY access mode"),
    (("-d", "a", "foo:x"), "unsupported dictionary type: foo"),
    (("proxy:lmdb:source",), "can't create maps via the proxy service"),
    (("-q", "a", "static:{b"), "bad static:name syntax: missing '}' in \"{b\""),
    (("-s", "environ:x"), "table environ:x: sequence operation is not supported"),
    (("-h", "source"), 'specify -b -h or -m only with "-q -"'),
]


@pytest.mark.parametrize(("options", "text"), FATAL, ids=[" ".join(case[0]) for case in FATAL])
def test_fatal(run: Run, options: tuple[str, ...], text: str) -> None:
    assert run("postmap", *options) == (1, "", f"postmap: fatal: {text}\n")


def test_usage(run: Run) -> None:
    status, _, err = run("postmap", "-x")
    assert status == 1
    assert err.startswith("postmap: invalid option -- 'x'\npostmap: fatal: usage: postmap [-")
    assert "option requires an argument -- 'q'" in run("postmap", "-q")[2]


MODES = [(0o600, (), 0o600), (0o640, (), 0o640), (0o666, (), 0o644), (0o640, ("-p",), 0o644)]


@pytest.mark.parametrize(("source", "options", "want"), MODES)
def test_rights_follow_the_source(
    run: Run, tmp_path: Path, source: int, options: tuple[str, ...], want: int
) -> None:
    os.chmod(tmp_path / "source", source)
    run("postmap", *options, "source")
    assert os.stat(tmp_path / "source.lmdb").st_mode & 0o777 == want


def test_files_as_values(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f1").write_text("one\n")
    (tmp_path / "f2").write_text("two\n")
    (tmp_path / "files").write_text("a f1, f2\nb nofile\n")
    warning = (
        "postmap: warning: files, line 2: "
        "open nofile: No such file or directory: skipping this entry\n"
    )
    assert run("postmap", "-F", "files") == (0, "", warning)
    assert run("postmap", "-Fq", "a", "files") == (0, "one\n\ntwo\n\n", "")
    (tmp_path / "bad").write_text("a not*base64\n")
    run("postmap", "bad")
    assert run("postmap", "-Fq", "a", "bad")[2] == (
        "postmap: warning: table lmdb:bad: key a: malformed BASE64 value: not*base64\n"
        "postmap: fatal: table lmdb:bad: query error\n"
    )


FILES = [
    ("static:f1", "x", "one\n"),
    ("static:{f1 f2}", "x", "one\n\ntwo\n"),
    ("inline:{a=f1}", "a", "one\n"),
    ("randmap:{f1}", "x", "one\n"),
    ("texthash:named", "a", "one\n"),
    ("cidr:{{192.0.2.0/24 f1}}", "192.0.2.1", "one\n"),
    ("regexp:{{/a/ f1}}", "a", "one\n"),
    ("pcre:{{/a/ f1}}", "a", "one\n"),
]
NO_FILES = [
    ("static:nofile", "fatal: open nofile: WHY"),
    ("randmap:{nofile}", "fatal: open nofile: WHY"),
    (
        "inline:{a=nofile}",
        'fatal: open nofile: WHY: "inline:{a=nofile}"; need "inline:{name=filename...}"',
    ),
    ("regexp:{{/a/ nofile}}", "warning: regexp map {{/a/ nofile}}, line 1: open nofile: WHY: SKIP"),
    ("cidr:{{::/0 nofile}}", "warning: cidr map {{::/0 nofile}}, line 1: open nofile: WHY: SKIP"),
]


@pytest.mark.parametrize(("table", "key", "content"), FILES)
def test_files_as_values_of_other_tables(
    run: Run, tmp_path: Path, table: str, key: str, content: str
) -> None:
    (tmp_path / "f1").write_text("one\n")
    (tmp_path / "f2").write_text("two\n")
    (tmp_path / "named").write_text("a f1\n")
    assert run("postmap", "-Fq", key, table) == (0, f"{content}\n", "")


@pytest.mark.parametrize(("table", "problem"), NO_FILES)
def test_files_that_are_not_there(run: Run, table: str, problem: str) -> None:
    text = problem.replace("WHY", "No such file or directory").replace("SKIP", "skipping this rule")
    assert run("postmap", "-Fq", "a", table) == (1, "", f"postmap: {text}\n")


@pytest.mark.parametrize(("options", "value"), [("-q", "one"), ("-wq", "one"), ("-rq", "two")])
def test_duplicates_of_texthash(run: Run, tmp_path: Path, options: str, value: str) -> None:
    (tmp_path / "twice").write_text("a one\na two\n")
    warning = 'postmap: warning: twice, line 2: duplicate entry: "a"\n'
    said = warning if options == "-q" else ""
    assert run("postmap", options, "a", "texthash:twice") == (0, f"{value}\n", said)


def test_a_daemon_does_not_guess_which_duplicate_counts(tmp_path: Path) -> None:
    (tmp_path / "twice").write_text("a one\na two\nb x\n")
    with pytest.raises(TableConfigError, match=r'twice, line 2: duplicate entry: "a"'):
        open_with(f"texthash:{tmp_path}/twice", TableOptions(strict=True))


def test_utf8(run: Run, tmp_path: Path) -> None:
    (tmp_path / "eight").write_bytes(b"\xe9 v\nok \xe9\n\xc3\x89 e\n")
    status, _, err = run("postmap", "eight")
    assert status == 0
    assert err == (
        'postmap: warning: eight, line 1: non-UTF-8 input "? v" -- ignoring this line\n'
        'postmap: warning: eight, line 2: non-UTF-8 input "ok ?" -- ignoring this line\n'
    )
    assert run("postmap", "-q", "é", "eight") == (0, "e\n", "")
    assert run("postmap", "-u", "eight") == (0, "", "")
    assert run("postmap", "-uq", "ok", "eight") == (0, "\udce9\n", "")
    assert run("postmap", "-q", "ok", "eight")[0] == 1


def test_message(run: Run) -> None:
    mail = b"Subject: yes\n folded\nTo: x\n\nbody line\n"
    table = "regexp:{{/^subject:/ found}}"
    assert run("postmap", "-hq", "-", table, stdin=mail)[1] == "Subject: yes\n folded\tfound\n"
    assert run("postmap", "-bq", "-", "static:S", stdin=mail)[1] == "\tS\nbody line\tS\n"


ALIASES = """\
Postmaster: root
team: alice, bob,
\tcarol
dup: one
dup: two
nocolon value
addr@example.org: bob
"""


def test_postalias(run: Run, tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text(ALIASES)
    status, _, err = run("postalias", "lmdb:aliases")
    assert status == 0
    assert sorted(err.splitlines()) == [
        "postalias: warning: aliases, line 6: need name:value pair",
        "postalias: warning: aliases, line 7: name must be local and have no domain",
        'postalias: warning: lmdb:aliases: duplicate entry: "dup"',
    ]
    _, out, _ = run("postalias", "-s", "aliases")
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "@",
        "YP_LAST_MODIFIED",
        "YP_MASTER_NAME",
        "dup",
        "postmaster",
        "team",
    ]
    assert run("postalias", "-q", "TEAM", "aliases") == (0, "alice, bob, carol\n", "")
    assert run("postalias", "-q", "-", "aliases", stdin=b"dup\n") == (0, "dup:\tone\n", "")
    assert run("postalias", "-i", "aliases", stdin=b"more: x,y\n") == (0, "", "")
    assert run("postalias", "-q", "more", "aliases") == (0, "x, y\n", "")
    assert run("postalias", "-d", "more", "aliases")[0] == 0


@pytest.mark.parametrize("flag", ["-n", "-N"])
def test_null_bytes(run: Run, flag: str) -> None:
    run("postmap", flag, "source")
    assert run("postmap", "-q", "key1", "source") == (0, "value one\n", "")
