"""Which lines of a log belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands.postfix_collate import groups, main

LOG = """\
connect smtpd[1]: connect from a.example[192.0.2.1]
submit pickup[9]: BBBBB1: uid=0 from=<root>
accept smtpd[1]: AAAAA1: client=a.example[192.0.2.1]
other sshd[7]: Accepted publickey
second smtpd[2]: connect from b.example[192.0.2.2]
tls smtp[3]: Trusted TLS connection established to mx.example
sent smtp[3]: AAAAA1: to=<x@example.org>, status=sent
refuse smtpd[2]: NOQUEUE: reject: RCPT from b.example[192.0.2.2]: 554 5.7.1 no
gone qmgr[5]: AAAAA1: removed
end1 smtpd[1]: disconnect from a.example[192.0.2.1] ehlo=1
end2 smtpd[2]: disconnect from b.example[192.0.2.2] ehlo=1
wait qmgr[5]: BBBBB1: from=<root@example.org>
lost smtp[4]: connect to mx.example[192.0.2.9]:25: Connection refused
"""


def lines() -> list[str]:
    found = []
    for number, line in enumerate(LOG.splitlines(True)):
        name, rest = line.split(" ", 1)
        tag = "" if name == "other" else "postfix/"
        found.append(f"Dec  1 01:00:{number:02} {name} mail {tag}{rest}")
    return found


def names(group: list[str]) -> list[str]:
    return [line.split()[3] for line in group]


def test_groups() -> None:
    assert [names(group) for group in groups(lines())] == [
        ["connect", "accept", "tls", "sent", "gone", "end1"],
        ["second", "refuse", "end2"],
        ["submit", "wait"],
        ["lost"],
    ]


def test_iso_time_and_lines_that_are_none() -> None:
    line = "2026-12-01T01:28:48.55+00:00 mail postfix/qmgr[297]: 5E420447D: removed\n"
    assert list(groups(["\n", "postfix/x", "]: [", "a b/c[x]: y: z\n", line])) == [[line]]


def test_a_new_session_of_a_process_whose_end_was_not_logged() -> None:
    one = "Dec  1 01:00:00 mail postfix/smtpd[1]: connect from a[192.0.2.1]\n"
    end = "Dec  1 01:00:02 mail postfix/smtpd[1]: disconnect from a[192.0.2.1]\n"
    assert list(groups([one, one, end])) == [[one], [one, end]]


def test_files(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes("".join(lines()).encode() + b"Dec  1 01:00:00 mail postfix/x[1]: \xff")
    assert main([str(path)]) == 0
    shown = capsysbinary.readouterr().out
    assert shown.count(b"\n\n") == 5
    assert shown.endswith(b"\xff\n\n")
    assert main(["/nonexistent"]) == 1
    assert b"No such file" in capsysbinary.readouterr().err
    assert main(["-x"]) == 1
