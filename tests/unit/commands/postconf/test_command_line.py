"""postconf as a whole: options, output, exit status."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.postconf import main
from commands.postconf.editing import Change, edit_main

MAIN = """\
# top
compatibility_level = 3.6
mydestination = a,   b,
  c
# about foo
my_own = bar
# inside
  more
smtpd_banner = $my_own  $mail_name
unused = 1
"""
MASTER = """\
# services
smtp      inet  n       -       y       -       -       smtpd
  -o { smtpd_banner = $mail_name   hello } -v
# comment
   -o   own=$mail_name
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient} -o a=b
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(MAIN)
    (tmp_path / "master.cf").write_text(MASTER)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-h mydestination", "a, b, c\n"),
        ("-H mydestination", "mydestination\n"),
        ("-x smtpd_banner", "smtpd_banner = bar more Postfix\n"),
        ("-o my_own=x -hx smtpd_banner", "x Postfix\n"),
        ("-d bounce_size_limit relayhost", "bounce_size_limit = 50000\nrelayhost =\n"),
        ("maildrop_time_limit", "maildrop_time_limit = $command_time_limit\n"),
        ("-C user", "my_own = bar more\n"),
        ("-M smtp", "smtp       inet  n       -       y       -       -       smtpd"
                    " -o {smtpd_banner=$mail_name   hello} -v -o own=$mail_name\n"),
        ("-Mf smtp/inet", "smtp       inet  n       -       y       -       -       smtpd\n"
                          "    -o {smtpd_banner=$mail_name   hello}\n    -v\n"
                          "    -o own=$mail_name\n"),
        ("-F smtp/inet/chroot", "smtp/inet/chroot = y\n"),
        ("-P", "smtp/inet/own = $mail_name\nsmtp/inet/smtpd_banner = $mail_name hello\n"),
        ("-Px smtp/inet/own", "smtp/inet/own = Postfix\n"),
    ],
)  # fmt: skip
def test_show(
    arguments: str, expected: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-c", str(directory), *arguments.split()]) == 0
    assert capsys.readouterr().out == expected


def test_settings_of_the_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(directory), "-n"]) == 0
    output = capsys.readouterr()
    names = [line.partition(" ")[0] for line in output.out.splitlines()]
    assert names == [
        "compatibility_level", "config_directory", "my_own", "mydestination", "smtpd_banner",
    ]  # fmt: skip
    assert f"postconf: warning: {directory}/main.cf: unused parameter: unused=1\n" in output.err


@pytest.mark.parametrize("chosen", [True, False])
def test_directory_is_a_setting_where_it_was_chosen(
    directory: Path,
    chosen: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("commands.postconf.options.DEFAULT_CONFIG_DIRECTORY", str(directory))
    monkeypatch.setattr("libmail.config.core.DEFAULT_CONFIG_DIRECTORY", str(directory))
    monkeypatch.delenv("MAIL_CONFIG", raising=False)
    if chosen:
        monkeypatch.setenv("MAIL_CONFIG", str(directory))
    assert main(["-n"]) == 0
    assert ("\nconfig_directory = " in capsys.readouterr().out) is chosen


def test_listing_is_sorted_and_complete(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-c", str(directory), "-H"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == sorted(names)
    assert {"my_own", "maildrop_recipient_limit", "sessions_per_process"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "before", "after"),
    [
        (["-e", "my_own=x y"], "my_own = bar\n# inside\n  more\n", "my_own = x y\n# inside\n"),
        (["new = 1"], "unused = 1\n", "unused = 1\nnew = 1\n"),
        (["-e", "unused="], "unused = 1\n", "unused = \n"),
        (["-X", "my_own"], "my_own = bar\n# inside\n  more\n", "# inside\n"),
        (["-#", "my_own"], "my_own = bar\n# inside\n  more\n",
         "#my_own = bar\n# inside\n#  more\n"),
        (["-X", "nosuch"], "", ""),
    ],
)  # fmt: skip
def test_edit_main(arguments: list[str], before: str, after: str, directory: Path) -> None:
    path = directory / "main.cf"
    path.chmod(0o640)
    assert main(["-c", str(directory), *arguments]) == 0
    assert path.read_text() == MAIN.replace(before, after)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(file.name for file in directory.iterdir()) == ["main.cf", "master.cf"]


@pytest.mark.parametrize(
    ("arguments", "kept", "gone"),
    [
        (["-Me", "smtp/inet=smtp inet n - - - 5 x"], "# comment", "smtpd"),
        (["-Me", "n/unix=n unix - - n - - pipe"], MASTER, "nothing"),
        (["-MX", "smtp/inet"], "# comment", "smtpd"),
        (["-M#", "smtp/inet"], "#   -o   own=$mail_name", "\nsmtp"),
        (["-F", "smtp/inet/chroot=n"], "inet  n       -       n  ", "inet  n       -       y"),
        (["-P", "smtp/inet/own=c"], "-o own=c", "own=$mail_name"),
        (["-PX", "smtp/inet/own"], "maildrop", "own"),
        (["-P", "maildrop/unix/a=c"], "pipe\n    -o a=c\n    flags=DRXhu", "o a=c\n    -o a=b"),
    ],
)
def test_edit_master(arguments: list[str], kept: str, gone: str, directory: Path) -> None:
    assert main(["-c", str(directory), *arguments]) == 0
    text = (directory / "master.cf").read_text()
    assert kept in text
    assert gone not in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-n", "-d"], "specify one of -d -n"),
        (["-e"], "-e requires name=value argument"),
        (["-e", "foo"], "missing '=' after attribute name: \"foo\""),
        (["-e", "a=b\nc"], "-e, -X, or -# accepts no multi-line input"),
        (["-e", "#a=b"], "-e, -X, or -# accepts no comment input"),
        (["-X", "a=b"], "specify one of -e -X"),
        (["-h", "-H", "a"], "specify one of -h -H"),
        (["-o", "x"], "invalid parameter override: x: missing '=' after attribute name"),
        (["-M", "-h"], "with option -M, do not specify -h"),
        (["-MX", "smtp"], "-Me, -MX or -M# requires service_name/type"),
        (["-F", "smtp/inet/chroot=q"], 'invalid chroot field "q" in "q"'),
        (["-P", "smtp/inet/new=c d"], "-Pe does not accept whitespace in parameter value"),
        (["-C", "x"], 'unknown -C option value "x" in "x"'),
        (["-x", "-o", "smtpd_banner=${x", "smtpd_banner"], "macro processing error"),
    ],
)
def test_fatal(
    arguments: list[str], complaint: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-c", str(directory), *arguments]) == 1
    assert f"postconf: fatal: {complaint}\n" in capsys.readouterr().err
    assert (directory / "main.cf").read_text() == MAIN
    assert (directory / "master.cf").read_text() == MASTER


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet="ab =#\n\t\udc80", max_size=60))
def test_editing_keeps_everything_else(text: str) -> None:
    kept = [line for line in text.split("\n") if line.lstrip(" \t").startswith("#")]
    edited = edit_main(text, Change.SET, {"new": "1"}, "main.cf")
    assert edited.startswith(text)
    assert edited.endswith("new = 1\n")
    edited = edit_main(text, Change.SET, {"a": "1"}, "main.cf")
    assert [line for line in edited.split("\n") if line.lstrip(" \t").startswith("#")] == kept
    assert edit_main(text, Change.REMOVE, {"new": ""}, "main.cf") == text


def test_texts_of_notifications(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = directory / "bounce.cf"
    file.write_text("verify_template = <<EOF\nSubject: s\n\nthis is $my_own\nEOF\n")
    assert main(["-c", str(directory), "-t", str(file)]) == 0
    shown = capfd.readouterr().out
    assert shown.endswith("<MAILER-DAEMON>\nSubject: s\n\nthis is $my_own\nEOF\n")
    assert main(["-c", str(directory), "-b", str(file)]) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("expanded_failure_text = <<EOF\nThis is the mail system")
    assert shown.endswith("\nexpanded_verify_text = <<EOF\nthis is bar  more\nEOF\n")
    assert main(["-c", str(directory), "-b", str(directory / "nothing")]) == 1
    assert capfd.readouterr().err.startswith("postfix/bounce: fatal: open ")
    assert main(["-c", str(directory), "-b", "", ""]) == 1
