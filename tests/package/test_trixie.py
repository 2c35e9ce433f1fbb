"""The same package on the next Debian, with another Python."""

from __future__ import annotations

import pytest

from tests.package.conftest import MakeMachine
from tests.package.test_debian import INSTALL, SUBMISSIONS, queue, runs, subjects
from tests.system.processes import wait_until

pytestmark = pytest.mark.package


def test_trixie(make_machine: MakeMachine) -> None:
    machine = make_machine("trixie")
    # Nobody is there to answer, and nobody has said so: as it often is when images are built.
    machine.install(f"DEBIAN_FRONTEND=teletype {INSTALL}")
    machine.shell("useradd -m user")
    assert runs(machine)
    assert "/" not in machine.run("cat", "/etc/mailname")  # the default of the question
    assert machine.run("postfix", "check") == ""
    *submissions, _ = SUBMISSIONS  # without mail(1), which is not in the package cache
    for command in submissions:
        machine.shell(command)
    wait_until(lambda: len(subjects(machine)) == len(submissions))
    machine.run("service", "postfix", "restart")
    assert runs(machine)
    machine.run("postconf", "-e", "transport_maps=inline:{later.test=retry:later}")
    machine.run("postfix", "reload")
    machine.shell("printf 'Subject: waits\n\nx\n' | sendmail someone@later.test")
    wait_until(lambda: len(queue(machine, "deferred")) == 1)
    machine.run("apt-get", "purge", "posthorn", "posthorn-pcre")
    assert not (machine.top / "var/spool/postfix").exists()
    # What nobody has got yet is not configuration: it stays.
    assert len(list(machine.top.glob("var/spool/posthorn-export/*.message"))) == 1
