"""bounce_template_file: syntax, macros, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.config import Config
from libmail.dsn.codes import adapt_class, split_dsn
from libmail.dsn.templates import (
    KINDS,
    TemplateError,
    builtin_templates,
    expanded,
    parse_templates,
    read_templates,
)

FILE = """\
# A comment.

failure_template = <<EOF
Charset: iso-8859-1
From: Bounces <MAILER-DAEMON>
Subject: could not be delivered
Postmaster-Subject: copy

Dear sender, $myhostname has kept this for $maximal_queue_lifetime_hours hours.
EOF

delay_template = <<END
Subject: late

late
END
"""


def config(**settings: str) -> Config:
    return Config("/nonexistent", (), (), "bounce").override(tuple(settings.items()))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_parse(ending: str) -> None:
    templates, warnings = parse_templates(FILE.replace("\n", ending), "bounce.cf")
    failure = templates.failure
    assert warnings == ()
    assert failure.charset == "iso-8859-1"
    assert failure.sender == "Bounces <MAILER-DAEMON>"
    assert failure.subject == "could not be delivered"
    assert failure.postmaster_subject == "copy"
    values = config(myhostname="host", maximal_queue_lifetime="7200s")
    text, warnings = expanded(values, "failure", failure)
    assert (text, warnings) == ("Dear sender, host has kept this for 2 hours.\n", ())
    assert (templates.delay.subject, templates.delay.text) == ("late", "late\n")
    assert templates.success == builtin_templates().success


def test_source_reads_back_as_the_same() -> None:
    text = "\n".join(builtin_templates().of(kind).source(kind) for kind in KINDS)
    templates, warnings = parse_templates(text, "[built-in]")
    assert (templates, warnings) == (builtin_templates(), ())


def test_header_from_format() -> None:
    old, _ = read_templates("", "obsolete")
    assert {old.of(kind).sender for kind in KINDS} == {"MAILER-DAEMON (Mail Delivery System)"}


@pytest.mark.parametrize(
    ("text", "seconds", "want", "warnings"),
    [
        ("$maximal_queue_lifetime_hours", 0, "0", 0),
        ("$maximal_queue_lifetime_hours", 1800, "0", 3),
        ("$maximal_queue_lifetime_days", 47 * 3600, "1", 0),
        ("${maximal_queue_lifetime_days}", 432000, "5", 0),
        ("$(maximal_queue_lifetime_days)s", 432000, "5s", 0),
        ("$maximal_queue_lifetime_seconds", 999, "999", 0),
        ("$maximal_queue_lifetime_seconds", 1000, "1000", 3),
        ("$maximal_queue_lifetime_minutes.", 120, "2.", 0),
        ("$maximal_queue_lifetime_weeks", 432000, "0", 3),
        ("$$x", 0, "$x", 0),
    ],
)
def test_times(text: str, seconds: int, want: str, warnings: int) -> None:
    templates, _ = parse_templates(f"verify_template = <<E\n\n{text}\nE\n", "f")
    values = config(maximal_queue_lifetime=f"{seconds}s")
    shown, told = expanded(values, "verify", templates.verify)
    assert (shown, len(told)) == (f"{want}\n", warnings)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("$no_such_name", r"^f: undefined \$name in verify template: \$no_such_name$"),
        ("$delay_warning_time_years", '^f: unrecognized suffix "years" in parameter'),
    ],
)
def test_names_that_mean_nothing(text: str, error: str) -> None:
    templates, _ = parse_templates(f"verify_template = <<E\n\n{text}\nE\n", "f")
    with pytest.raises(TemplateError, match=error):
        expanded(config(), "verify", templates.verify)


SECTIONS = [
    ("From:x\nsubject : y\ntext", "", "text\n"),
    ("Subject: y\n  From: x", "", "  From: x\n"),
    ("Subject: y\nSubject y\n\nz", "", "Subject y\n\nz\n"),
    ("\n\nz", "", "z\n"),
    ("Subject: y", "missing message text in failure", ""),
    ("X-Other: y\n\nx", 'unknown "X-Other" header label in failure', ""),
    ("From:\n\nx", 'empty "From" header value', ""),
    ("From: ü\n\nx", 'non-ASCII "From" header value', ""),
    ("From: x\n\nü", "8-bit message text in failure template", ""),
    ("Charset: utf-8\n\nü", "", "ü\n"),
]


@pytest.mark.parametrize(("lines", "warning", "text"), SECTIONS)
def test_sections(lines: str, warning: str, text: str) -> None:
    templates, warnings = parse_templates(f"failure_template = <<E\n{lines}\nE\n", "f")
    if warning:
        assert warnings[0].startswith(f"f: {warning}")
        assert templates == builtin_templates()
    else:
        assert warnings == ()
        assert templates.failure.text == text


FILES = [
    ("other_template = <<E\nE\n", "f, line 3: unknown template name: other_template"),
    ("failure_template = <<E\n\nx\n", 'f, line 4: missing "E" end marker'),
    (
        "success_template = <<E\nPostmaster-Subject: x\n\ny\nE\n",
        'f: inapplicable "Postmaster-Subject" header label in success template',
    ),
]


@pytest.mark.parametrize(("text", "warning"), FILES)
def test_warnings(text: str, warning: str) -> None:
    _, warnings = parse_templates(text, "f")
    assert warnings[0].startswith(warning)


@pytest.mark.parametrize("text", ["what\n", "failure_template = <<\n"])
def test_bad_files(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^bounce\.cf, line 2: missing "):
        parse_templates(text, "bounce.cf")


@given(st.text())
def test_any_file_is_read_or_refused(text: str) -> None:
    for file in (text, f"failure_template = <<E\n{text}\nE\n"):
        try:
            parse_templates(file, "f")
        except TemplateError:
            pass


CODES = [
    ("5.1.1 no", ("5.1.1", "no")),
    ("  4.4.9  for ever", ("4.4.9", "for ever")),
    ("5.1.1", ("5.1.1", "")),
    ("5.1.1x", ("5.0.0", "5.1.1x")),
    ("3.1.1 no", ("5.0.0", "3.1.1 no")),
    ("  text", ("5.0.0", "text")),
    ("", ("5.0.0", "")),
]


@pytest.mark.parametrize(("text", "want"), CODES)
def test_split_dsn(text: str, want: tuple[str, str]) -> None:
    assert split_dsn(text, "5.0.0") == want


def test_adapt_class() -> None:
    assert adapt_class("5.1.1", "4") == "4.1.1"
