"""A running Postfix of Debian with mail in its queue is replaced by the package, and comes back."""

from __future__ import annotations

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
postfix stop
for number in $(seq {DROPPED}); do
    printf 'Subject: drop%s\\n\\nx\\n' $number | sendmail -f user user
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
    machine.shell(DROP)
    return machine


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
    machine.run("dpkg", "--purge", "posthorn")
    assert (machine.top / "etc/postfix/main.cf").exists()
    assert runs(machine)
