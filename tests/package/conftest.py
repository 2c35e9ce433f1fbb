"""Fixtures of the tests of packages: what was built, and machines to install it in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.package.machine import Machine, need_machine
from tests.system.harness import ROOT

NEXT_VERSION = "999"


class MakeMachine(Protocol):
    """Makes a machine with this suite of Debian; see `Machine`."""

    def __call__(self, suite: str) -> Machine: ...


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the packages of the tree, and in `next` those of a later version."""
    need_machine()
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run([ROOT / "packaging/make-deb", folder], check=True)
    (folder / "next").mkdir()
    for name in ("posthorn", "posthorn-pcre"):
        package_again(next(folder.glob(f"{name}_*.deb")), folder)
    return folder


def package_again(path: Path, folder: Path) -> None:
    """The same package with another version, into `next`."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", path, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text("utf-8").splitlines()
    version = next(line for line in lines if line.startswith("Version: ")).partition(" ")[2]
    text = control.read_text("utf-8").replace(f"Version: {version}", f"Version: {NEXT_VERSION}")
    control.write_text(text.replace(f"posthorn (= {version})", f"posthorn (= {NEXT_VERSION})"))
    target = folder / "next" / path.name.replace(version, NEXT_VERSION)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, target], check=True)
    subprocess.run(["rm", "-r", tree], check=True)


@pytest.fixture(scope="module")
def make_machine(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeMachine]:
    """Makes machines, which end with the tests of the module."""
    machines: list[Machine] = []

    def make(suite: str) -> Machine:
        top = tmp_path_factory.mktemp(suite) / "root"
        machine = Machine(top, suite, packages)
        machines.append(machine)
        machine.start()
        return machine

    yield make
    for machine in machines:
        machine.end()
