"""docs/changing.md, word for word: to `make install` beside a Postfix with mail, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.package.machine import Copy, need_machine
from tests.package.test_debian import queue, subjects
from tests.system.harness import ROOT
from tests.system.processes import wait_until

pytestmark = pytest.mark.package

COMMAND = re.compile(r"(?:/usr/(?:local/)?sbin/|make |mv |ln |apt-get |/var/spool/)[^`\n]+")
# A Postfix as Debian configures it, with mail that waits.
PREPARE = """
cp /usr/share/postfix/main.cf.debian /etc/postfix/main.cf
cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf
postconf -e myhostname=mail.example.test mydestination=mail.example.test inet_interfaces= \\
    master_service_disable=inet alias_maps=hash:/etc/aliases alias_database=hash:/etc/aliases \\
    'transport_maps=inline:{later.test=retry:later}'
useradd -m user
echo 'postmaster: root' >/etc/aliases
newaliases
postfix start
for number in 1 2 3; do
    printf 'Subject: m%s\\n\\nx\\n' $number | sendmail -f user user$number@later.test
done
"""
DELIVER = "postconf -e 'transport_maps=inline:{later.test=local:}' luser_relay=user"


def section(title: str) -> str:
    text = (ROOT / "docs/changing.md").read_text("utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(text: str) -> Iterator[str]:
    """What a reader is to type: code between backquotes, and indented lines, in order."""
    for found in re.finditer(r"`([^`\n]+)`|^ {4,}(\S.*)$", text, re.MULTILINE):
        code = found[1] or found[2]
        if found[2] or (COMMAND.fullmatch(code) and " " in code):
            yield code


def test_make_install_and_back() -> None:
    need_machine()
    there, back = section("Elsewhere: make install").split("The way back:")
    copy = Copy()
    try:
        copy.shell(PREPARE)
        wait_until(lambda: len(queue(copy, "deferred")) == 3)
        run_all(copy, there)
        assert len(queue(copy, "deferred")) == 3
        assert "/usr/local" in copy.run("readlink", "/usr/sbin/sendmail")
        copy.shell("printf 'Subject: ours\n\nx\n' | /usr/sbin/sendmail user")
        wait_until(lambda: subjects(copy) == ["ours"])
        copy.shell(DELIVER)
        run_all(copy, back)
        wait_until(lambda: len(subjects(copy)) == 4)
        assert sorted(subjects(copy)) == ["m1", "m2", "m3", "ours"]
        assert copy.run("/usr/sbin/postqueue", "-p") == "Mail queue is empty\n"
        copy.run("/usr/sbin/postfix", "stop")
    finally:
        copy.end()


def run_all(copy: Copy, text: str) -> None:
    found = list(commands(text))
    assert len(found) > 5
    for command in found:
        copy.shell(f"cd {ROOT}; {command}")
