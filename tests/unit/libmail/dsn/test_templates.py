from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.dsn.codes import adapt_class, split_dsn
from libmail.dsn.templates import TemplateError, builtin_templates, parse_templates

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


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_parse(ending: str) -> None:
    templates = parse_templates(FILE.replace("\n", ending), "bounce.cf")
    failure = templates.failure
    assert failure.charset == "iso-8859-1"
    assert failure.sender == "Bounces <MAILER-DAEMON>"
    assert failure.subject == "could not be delivered"
    assert failure.postmaster_subject == "copy"
    assert failure.expanded(
        lambda text: text.replace("$myhostname", "host"), lambda name: 7200
    ) == ("Dear sender, host has kept this for 2 hours.\n")
    assert (templates.delay.subject, templates.delay.text) == ("late", "late\n")
    assert templates.success == builtin_templates().success


@pytest.mark.parametrize(
    ("text", "seconds", "want"),
    [
        ("$delay_warning_time_hours", 1, "0"),
        ("$delay_warning_time_hours", 1800, "1"),
        ("${maximal_queue_lifetime_days}", 432000, "5"),
        ("$maximal_queue_lifetime_seconds", 5, "5"),
        ("$maximal_queue_lifetime_minutes.", 120, "2."),
        ("$maximal_queue_lifetime_weeks", 432000, "1"),
    ],
)
def test_times(text: str, seconds: float, want: str) -> None:
    templates = parse_templates(f"verify_template = <<E\n\n{text}\nE\n", "f")
    assert templates.verify.expanded(lambda text: text, lambda name: seconds) == f"{want}\n"


BAD = [
    ("word", "what\n"),
    ("name", "other_template = <<E\nE\n"),
    ("no end", "failure_template = <<E\n\nx\n"),
    ("header", "failure_template = <<E\nX-Other: y\n\nx\nE\n"),
    ("no colon", "failure_template = <<E\nSubject\n\nx\nE\n"),
]


@pytest.mark.parametrize("text", [c[1] for c in BAD], ids=[c[0] for c in BAD])
def test_bad_files(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^bounce\.cf, line 1: "):
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
