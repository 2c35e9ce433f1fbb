"""packaging/container: the mail system as process 1, set up by its environment."""

from __future__ import annotations

import os
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
SOME_USER = 1_000_680_000
# As in make-rootfs.
ACCOUNTS = (ROOT / "packaging/container/make-rootfs").read_text("utf-8").split("accounts='")[1]
ACCOUNTS = ACCOUNTS.partition("'")[0]
SEND = """
import smtplib
with smtplib.SMTP("localhost", 2525) as client:
    client.sendmail("a@example.org", "user@example.test", "Subject: x\\n\\nx\\n")
"""
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


def volumes(folder: Path, owner: int = 0) -> list[str]:
    """Options that mount new directories of this user, which are 0, 1, ... in the folder."""
    folder.chmod(0o755)
    binds = []
    for number, volume in enumerate(VOLUMES):
        (folder / str(number)).mkdir(mode=0o755)
        os.chown(folder / str(number), owner, 0)
        binds.append(f"--bind={folder}/{number}:{volume}")
    return binds


def settings(machine: Machine) -> dict[str, str]:
    lines = machine.run("postconf", "-c", "/run/postfix", "-n").splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def test_read_only_root(machine: Machine, tmp_path: Path) -> None:
    machine.become(
        "--read-only", *volumes(tmp_path), "--setenv=POSTFIX_myhostname=mx.example.test",
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


def test_user_without_a_name(machine: Machine, tmp_path: Path) -> None:
    """As some container platforms have it: a user id of their choice, and group 0."""
    machine.kill()
    machine.start()
    machine.run("apt-get", "install", "-y", "libnss-extrausers")
    machine.shell(ACCOUNTS)
    start = (
        f"chmod 1777 /run; exec setpriv --reuid={SOME_USER} --regid=0 --clear-groups {CONTAINER}"
    )
    machine.become(
        "--read-only", *volumes(tmp_path, SOME_USER), "--setenv=POSTFIX_myhostname=mx.example.test",
        "--setenv=POSTFIX_mydestination=", "--setenv=POSTFIX_virtual_mailbox_domains=example.test",
        "--setenv=POSTFIX_virtual_mailbox_base=/var/mail",
        "--setenv=POSTFIX_virtual_mailbox_maps=static:user/",
        f"--setenv=POSTFIX_virtual_uid_maps=static:{SOME_USER}",
        "--setenv=POSTFIX_virtual_gid_maps=static:100", "sh", "-c", start,
    )  # fmt: skip
    wait_until(lambda: "daemon started" in machine.log(), machine.log)
    machine.run("python3", "-c", SEND)
    wait_until(lambda: bool(list(tmp_path.glob("2/user/new/*"))), machine.log)
    assert (tmp_path / "0/pid").stat().st_uid == SOME_USER
