"""What postconf shows of main.cf and master.cf."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands.postconf import main
from commands.postconf.deprecated import LEAVE_AT_DEFAULT, REPLACEMENTS, deprecation
from commands.postconf.usage import client_tables
from libmail.config.declared import find
from libmail.config.expand import references

MASTER = """\
# services
smtp      inet  n       -       y       -       -       smtpd
  -o { smtpd_banner = $mail_name   hello } -o syslog_name=postfix/$service_name
pipes     unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}
"""


def _run(
    directory: Path, text: str, arguments: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str], list[str]]:
    (directory / "main.cf").write_text(text)
    (directory / "master.cf").write_text(MASTER)
    status = main(["-c", str(directory), *arguments.split()])
    output = capsys.readouterr()
    warnings = [line.removeprefix("postconf: ") for line in output.err.splitlines()]
    return status, output.out.splitlines(), [line.replace(f"{directory}/", "") for line in warnings]


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("foo = 1\n", ["foo=1"]),
        ("foo = 1\nrelayhost = ${foo?x}\n", []),
        ("foo = 1\nmydestination = inline:{ {a = $foo} }\n", []),
        ("smtpd_restriction_classes = one\none = permit\ntwo = permit\n", ["two=permit"]),
        ("pipes_time_limit = 1h\nsmtp_time_limit = 1h\n", ["smtp_time_limit=1h"]),
        ("pipes_destination_recipient_limit = 1\n", []),
        ("alias_maps = ldap:one\none_bind = no\none_bogus = 1\n", ["one_bogus=1"]),
        ("alias_maps = proxy:mysql:one\none_hosts = x\none_bind = y\n", ["one_bind=y"]),
        ("alias_maps = pipemap:{ldap:one, sqlite:two}\none_bind=x\ntwo_dbpath=/x\n", []),
        ("smtpd_client_restrictions = check_client_access { pgsql:p }\np_user = x\n", []),
        ("one_bind = no\n", ["one_bind=no"]),
        ("foo = ldap:one\none_bind = no\n", ["foo=ldap:one", "one_bind=no"]),
        ("foo = ldap:one\nalias_maps = $foo\none_bind = no\n", []),
        ("mydestination = ${domain_to_ascii{x.example}}\n", []),
    ],
)
def test_unused(
    text: str, unused: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, shown, warnings = _run(tmp_path, text, "-n", capsys)
    assert warnings == [f"warning: main.cf: unused parameter: {name}" for name in unused]
    assert not {name.partition("=")[0] for name in unused} & {line.split()[0] for line in shown}
    assert _run(tmp_path, text, "-qn", capsys) == (0, shown, [])


def test_names_that_are_not_set_or_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "unused = 1\nrelayhost = a\n"
    assert _run(tmp_path, text, "-qn unused relayhost myhostname nosuch", capsys) == (
        0,
        ["relayhost = a"],
        ["warning: unused: unknown parameter", "warning: nosuch: unknown parameter"],
    )


def test_files_of_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.cf").write_text("server_host = a\nbogus = 1\n")
    text = f"alias_maps = ldap:{tmp_path}/x.cf mysql:{tmp_path}/none.cf\n"
    _, _, warnings = _run(tmp_path, text, "-n", capsys)
    assert warnings == [
        "warning: ldap:x.cf: unused parameter: bogus=1",
        'warning: open "mysql" configuration "none.cf": No such file or directory',
    ]


def test_tables_inside_others() -> None:
    texts = ["a ldap:b {mysql:c, d} pipemap:{debug:proxy:pgsql:e} hash:/f", "unionmap:{{ldap:g}}"]
    found = [(table.kind, table.name) for table in client_tables(texts)]
    assert found == [("ldap", "b"), ("mysql", "c"), ("pgsql", "e"), ("ldap", "g")]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("${", 'truncated macro reference: "${"'),
        ("$", 'empty macro name: "$"'),
        ("$mydestination x", 'unreasonable macro call nesting: "mydestination"'),
    ],
)
def test_malformed_values(
    value: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _run(tmp_path, f"mydestination = {value}\n", "myhostname", capsys)
    assert result == (1, [], [f"warning: {complaint}", "fatal: macro processing error"])
    assert main(["-c", str(tmp_path), "-e", "mydestination=x"]) == 0


def test_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "master.cf").write_text(
        "smtp inet n - y - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n"
        "127.0.0.1:10025 inet n - n - - smtpd\na-name-longer-than-two-columns unix - n n - 2 pipe\n"
    )
    (tmp_path / "main.cf").write_text("compatibility_level = 3.12\n")
    assert main(["-c", str(tmp_path), "-M"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "smtp       inet  n       -       y       -       -       smtpd",
        "postlog    unix-dgram n  -       n       -       1       postlogd",
        "127.0.0.1:10025 inet n   -       n       -       -       smtpd",
        "a-name-longer-than-two-columns unix - n n -      2       pipe",
    ]


def test_deprecated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "virtual_maps = x\nsmtpd_tls_eecdh_grade = auto\n"
    _, _, warnings = _run(tmp_path, text, "-n", capsys)
    assert warnings == [
        'warning: main.cf: support for parameter "virtual_maps" will be removed;'
        ' instead, specify "virtual_alias_maps"',
        'warning: main.cf: support for parameter "smtpd_tls_eecdh_grade" will be removed;'
        " instead, do not specify (leave at default)",
    ]
    assert _run(tmp_path, text, "-qn", capsys)[2] == []


def test_deprecated_names_and_their_replacements_exist() -> None:
    for name, replacement in REPLACEMENTS.items():
        declared = find(replacement)
        assert declared is not None
        assert find(name) is not None or name in references(declared.default)
    assert all(find(name) is not None for name in LEAVE_AT_DEFAULT)
    assert deprecation("myhostname") == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-jn relayhost", [{"relayhost": "a b"}]),
        ("-jF smtp/inet/chroot", [{"smtp/inet/chroot": "y"}]),
        ("-jPx smtp/inet/syslog_name", [{"smtp/inet/syslog_name": "postfix/smtp"}]),
        ("-jM pipes", [{"pipes/unix": "pipes unix - n n - - pipe flags=DRXhu user=vmail"
                        " argv=/usr/bin/maildrop -d ${recipient}"}]),
    ],
)  # fmt: skip
def test_json(
    arguments: str,
    expected: list[dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, lines, _ = _run(tmp_path, "relayhost = a\n  b\n", arguments, capsys)
    assert [json.loads(line) for line in lines] == expected


def test_patterns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines, warnings = _run(tmp_path, "", "-FH pipes smtp/inet/type no/inet", capsys)
    assert (status, len(lines), lines[0]) == (0, 9, "smtp/inet/type")
    assert warnings == ['warning: unmatched request: "no/inet"']
    for option, pattern, form in (
        ("-M", "s*/inet", "service_name[/type]"),
        ("-M", "/inet", "service_name[/type]"),
        ("-F", "a/b/c/d", "service_name[/type[/field]]"),
        ("-P", "a/b/c/d", "service_name[/type[/parameter]]"),
    ):
        status, _, errors = _run(tmp_path, "", f"{option} {pattern}", capsys)
        assert (status, errors) == (1, [f"fatal: {option} option requires {form}"])


def test_folded_and_expanded_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines, _ = _run(tmp_path, "", "-Ffx smtp/inet/command", capsys)
    assert lines == [
        "smtp/inet/command = smtpd",
        "    -o {smtpd_banner=Postfix   hello}",
        "    -o syslog_name=postfix/smtp",
    ]
    _, lines, _ = _run(tmp_path, "", "-Fh pipes/unix/command", capsys)
    assert lines == ["pipe flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}"]


def test_defaults_know_nothing_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "myhostname = here.example\nmail_name = X\n"
    assert _run(tmp_path, text, "-dx smtpd_banner mail_name", capsys)[1][1] == "mail_name = Postfix"
    assert "here.example" not in "".join(_run(tmp_path, text, "-dx smtpd_banner", capsys)[1])


def test_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "foo = bar\nrelayhost = $foo $undefined\n"
    names = "relayhost smtpd_banner pipes_time_limit myhostname nosuch"
    status, lines, warnings = _run(tmp_path, text, f"--origin {names}", capsys)
    assert (status, warnings) == (0, ["warning: nosuch: unknown parameter"])
    path = str(tmp_path)
    shown = [line.replace(f"{path}/", "") for line in lines]
    assert shown[:9] == [
        "relayhost = $foo $undefined",
        "    set in main.cf, line 2",
        "    $foo = bar, set in main.cf, line 1",
        "    $undefined = (empty), not defined",
        "smtpd_banner = $myhostname ESMTP $mail_name",
        "    default",
        "    smtp/inet has $mail_name hello, master.cf, line 2",
        shown[7],
        "    $mail_name = Postfix, default",
    ]
    assert shown[7].startswith("    $myhostname = ")
    assert shown[9:12] == [
        "pipes_time_limit = $command_time_limit",
        "    default of all SERVICE_time_limit parameters",
        "    $command_time_limit = 1000s, default",
    ]
    assert shown[13] == "    found out by the program"
    assert _run(tmp_path, text, "-o foo=x --origin foo", capsys)[1] == [
        "foo = x", "    set by option -o",
    ]  # fmt: skip
    assert _run(tmp_path, text, "--origin", capsys)[2] == [
        "fatal: --origin requires parameter names"
    ]


OPTIONS = """\
smtp inet n - y - - smtpd -o process_id=1 -o smtpd_restriction_classes=mc1,mc2 -o mc1=permit
  -o smtpd_sender_restrictions=$mua_x -o mua_x=reject -o mua_y=reject
  -o inner_bind=no -o second_user=a -o third_user=b -vo transport_maps=mysql:$own -o own=q
  -o q_user=z -o q_zzz=z -o virtual_alias_maps=ldap:CLIENT
"""


def test_options_of_services(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What they make use of: names of each other and of main.cf, tables after expansion."""
    (tmp_path / "client.cf").write_text("server_host = x\nbogus = 1\n")
    (tmp_path / "master.cf").write_text(OPTIONS.replace("CLIENT", f"{tmp_path}/client.cf"))
    main_cf = "alias_maps = ldap:inner\ncanonical_maps = mysql:$name\nname = second\n"
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{main_cf}")
    assert main(["-c", str(tmp_path), "-P"]) == 0
    output = capsys.readouterr()
    assert "smtp/inet/process_id" not in output.out
    warnings = output.err.replace(f"{tmp_path}/", "").splitlines()
    assert sorted(warnings) == sorted(
        f"postconf: warning: {text}"
        for text in (
            "master.cf: read-only parameter assignment: process_id=1",
            "master.cf: undefined parameter: mc2",
            "master.cf: unused parameter: mua_y=reject",
            "master.cf: unused parameter: third_user=b",
            "master.cf: unused parameter: q_zzz=z",
            "ldap:client.cf: unused parameter: bogus=1",
        )
    )
