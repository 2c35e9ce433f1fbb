"""The same package on the next Debian, with another Python."""

from __future__ import annotations

import pytest

from tests.package.conftest import MakeMachine
from tests.package.test_debian import SUBMISSIONS, install, runs, subjects
from tests.system.processes import wait_until

pytestmark = pytest.mark.package


def test_trixie(make_machine: MakeMachine) -> None:
    machine = make_machine("trixie")
    install(machine)
    assert runs(machine)
    assert machine.run("postfix", "check") == ""
    *submissions, _ = SUBMISSIONS  # without mail(1), which is not in the package cache
    for command in submissions:
        machine.shell(command)
    wait_until(lambda: len(subjects(machine)) == len(submissions))
    machine.run("service", "postfix", "restart")
    assert runs(machine)
    machine.run("apt-get", "purge", "posthorn", "posthorn-pcre")
    assert not (machine.top / "var/spool/postfix").exists()
