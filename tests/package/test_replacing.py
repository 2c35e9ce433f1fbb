"""A running Postfix of Debian with mail in its queue is replaced by the package, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.package.conftest import MakeMachine
from tests.package.machine import Machine
from tests.package.test_changing import commands, section
from tests.package.test_debian import queue, runs, subjects
from tests.system.processes import wait_until

pytestmark = pytest.mark.package

DEFERRED = 100
HELD = 50
DROPPED = 50
LATER = "transport_maps=inline:{later.test=retry:later, now.test=discard:}"
# Deferred and held mail, one of it delivered in part; then submissions while nobody runs.
FILL = f"""
useradd -m user
postconf -e '{LATER}'
postfix reload
for number in $(seq {DEFERRED + HELD - 1}); do
    printf 'Subject: m%s\\n\\nx\\n' $number | sendmail -f user user$number@later.test
done
printf 'Subject: part\\n\\nx\\n' | sendmail -f user -N failure one@later.test two@now.test
"""
HOLD = f"find /var/spool/postfix/deferred -type f -printf '%f\\n' | head -n {HELD} | postsuper -h -"
DROP = f"""
postmulti -i - -p stop
for number in $(seq {DROPPED}); do
    printf 'Subject: drop%s\\n\\nx\\n' $number | sendmail -f user user
done
"""
# A second instance, which was started by hand: the init system knows nothing of it.
SECOND = """
postmulti -e init
postmulti -I postfix-out -G out -e create
postmulti -i postfix-out -e enable
postconf -c /etc/postfix-out -e 'transport_maps=static:retry:later' inet_interfaces=loopback-only \\
    authorized_submit_users=root master_service_disable=inet myhostname=out.example.test
postmulti -i postfix-out -p start
for number in 1 2 3; do
    printf 'Subject: out%s\\n\\nx\\n' $number |
        MAIL_CONFIG=/etc/postfix-out sendmail -f user user$number@later.test
done
"""
LOCAL = "transport_maps=inline:{later.test=local:, now.test=discard:}"
# Whoever the mail is for, one account gets it, and it is counted.
DELIVER = f"""
postconf -e '{LOCAL}' luser_relay=user local_recipient_maps=
postfix reload
"""


@pytest.fixture(scope="module")
def machine(make_machine: MakeMachine) -> Machine:
    """A machine with a Postfix that was filled, and stopped: nothing takes what was submitted."""
    machine = make_machine("bookworm")
    machine.install(
        "echo postfix postfix/main_mailer_type select Internet Site | debconf-set-selections; "
        "apt-get install -y postfix postfix-pcre bsd-mailx"
    )
    machine.shell(FILL)
    wait_until(lambda: len(queue(machine, "deferred")) == DEFERRED + HELD)
    machine.shell(HOLD)
    machine.shell(SECOND)
    wait_until(lambda: len(second_queue(machine)) == 3)
    machine.shell(DROP)
    return machine


def second_queue(machine: Machine) -> list[Path]:
    return [
        path for path in machine.top.glob("var/spool/postfix-out/deferred/**/*") if path.is_file()
    ]


def test_taking_over(machine: Machine) -> None:
    before = machine.run("postconf", "-n")
    *_, there = commands(section("Debian: the packages").split("The way back:")[0])
    machine.install(f"mkdir /root/build; ln -s /packages /root/build/deb; cd /root; {there}")
    assert machine.run("postconf", "-n") == before
    assert runs(machine)
    wait_until(lambda: len(subjects(machine)) == DROPPED)
    assert len(queue(machine, "deferred")) == DEFERRED
    assert len(queue(machine, "hold")) == HELD
    assert queue(machine, "corrupt") == []
    assert not (machine.top / "var/spool/postfix/original").exists()
    assert "bsd-mailx" in machine.run("dpkg-query", "-W", "-f", "${Package}\n")
    assert "pcre" in machine.run("postconf", "-m")
    assert len(second_queue(machine)) == 3
    machine.run("postmulti", "-p", "status")
    assert "3 Requests" in machine.run("env", "MAIL_CONFIG=/etc/postfix-out", "mailq")


def test_purging_what_is_left_of_it_takes_nothing_away(machine: Machine) -> None:
    machine.run("dpkg", "--purge", "postfix-pcre", "postfix")
    assert (machine.top / "etc/postfix/main.cf").exists()
    assert len(queue(machine, "deferred")) == DEFERRED
    machine.run("getent", "passwd", "postfix")
    assert runs(machine)


def test_back_to_it(machine: Machine) -> None:
    """The queue is handed back, and each message is delivered once."""
    install, submit = commands(section("Debian: the packages").split("The way back:")[1])
    machine.install(install)
    assert not (machine.top / "usr/share/posthorn").exists()
    assert queue(machine, "deferred") == []
    machine.shell(DELIVER)
    assert f"Submitted: {DEFERRED}," in machine.shell(submit)
    wait_until(lambda: len(subjects(machine)) == DROPPED + DEFERRED)
    assert f"Submitted: {HELD}," in machine.run("/var/spool/posthorn-export/hold/submit")
    wait_until(lambda: len(subjects(machine)) == DROPPED + DEFERRED + HELD)
    numbers = range(1, DEFERRED + HELD)
    expected = [f"drop{one}" for one in range(1, DROPPED + 1)] + [f"m{one}" for one in numbers]
    assert sorted(subjects(machine)) == sorted([*expected, "part"])
    mailbox = (machine.top / "var/mail/user").read_text("utf-8")
    assert mailbox.count("Return-Path: <user@") == DROPPED + DEFERRED + HELD
    assert "X-Original-To: two@now.test" not in mailbox
    submitted = machine.run(
        "env", "MAIL_CONFIG=/etc/postfix-out", "/var/spool/posthorn-export.postfix-out/submit"
    )
    assert "Submitted: 3," in submitted
    wait_until(lambda: len(second_queue(machine)) == 3)
    assert_nothing_left(machine)


def assert_nothing_left(machine: Machine) -> None:
    """Purging what is left of ours takes nothing away either, and leaves nothing that is ours."""
    machine.run("dpkg", "--purge", "posthorn")
    assert (machine.top / "etc/postfix/main.cf").exists()
    assert runs(machine)
    assert list(machine.top.glob("etc/rc2.d/S*postfix"))
    machine.run("/etc/init.d/postfix", "status")
    assert machine.run("systemctl", "is-enabled", "postfix") == "enabled\n"
    assert not list(machine.top.glob("var/spool/posthorn-export*"))
    assert machine.run("find", "/etc", "/var", "-xdev", "-nouser", "-o", "-xdev", "-nogroup") == ""
