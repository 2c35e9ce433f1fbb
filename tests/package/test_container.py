"""packaging/container: the mail system as process 1, set up by its environment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.package.conftest import MakeMachine
from tests.package.machine import Machine
from tests.package.test_debian import install
from tests.system.harness import ROOT
from tests.system.processes import wait_until

pytestmark = pytest.mark.package

CONTAINER = "/usr/lib/posthorn/container"
VOLUMES = ("/var/spool/postfix", "/var/lib/postfix", "/var/mail")


@pytest.fixture(scope="module")
def machine(make_machine: MakeMachine) -> Machine:
    """What packaging/container/make-rootfs makes, by way of the package cache."""
    machine = make_machine("bookworm")
    if not machine.booted:
        pytest.skip(machine.why_not_booted)
    install(machine)
    (machine.top / "usr/lib/posthorn").mkdir()
    shutil.copy(ROOT / "packaging/container/container", machine.top / CONTAINER[1:])
    return machine


def settings(machine: Machine) -> dict[str, str]:
    lines = machine.run("postconf", "-c", "/run/postfix", "-n").splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def test_read_only_root(machine: Machine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    binds = []
    for number, volume in enumerate(VOLUMES):
        (tmp_path / str(number)).mkdir(mode=0o755)
        binds.append(f"--bind={tmp_path}/{number}:{volume}")
    machine.become(
        "--read-only", *binds, "--setenv=POSTFIX_myhostname=mx.example.test",
        "--setenv=POSTFIX_relayhost=[192.0.2.1]:2525",
        "--setenv=POSTFIX_master_submission__inet=submission inet n - n - - smtpd", CONTAINER,
    )  # fmt: skip
    wait_until(lambda: "daemon started" in machine.log(), machine.log)
    found = settings(machine)
    assert found["myhostname"] == "mx.example.test"
    assert found["relayhost"] == "[192.0.2.1]:2525"
    services = machine.run("postconf", "-c", "/run/postfix", "-M", "submission/inet")
    assert services.split()[:2] == ["submission", "inet"]
    machine.shell("printf 'Subject: x\n\nx\n' | MAIL_CONFIG=/run/postfix sendmail root")
    wait_until(lambda: "to=<root@mx.example.test>" in machine.log(), machine.log)
    assert "status=sent" in machine.log()
    assert (tmp_path / "2/root").read_text().startswith("From root@mx.example.test")
    assert machine.try_run("touch", "/etc/x").returncode != 0
