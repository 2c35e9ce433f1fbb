"""What is for systems that are not here: looked at by what tools there are, and played."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.harness import ROOT, need_tool

pytestmark = pytest.mark.package

PACKAGING = ROOT / "packaging"
SCRIPTS = [
    *sorted((PACKAGING / "scripts").iterdir()),
    *sorted((PACKAGING / "container").iterdir()),
    *sorted((PACKAGING / "debian/tools").iterdir()),
    *sorted((PACKAGING / "debian").glob("posthorn.*inst")),
    *sorted((PACKAGING / "debian").glob("posthorn.*rm")),
    *(PACKAGING / "debian" / name for name in ("configure-instance.sh", "network-hook",
      "postfix-instance-generator", "posthorn.config", "posthorn.postfix.init", "resolver-hook")),
    *(PACKAGING / name for name in ("make-deb", "make-venv", "freebsd/postfix", "openrc/postfix",
      "test-packages")),
]  # fmt: skip
# Files that are not here, and variables that whoever reads the script makes use of.
EXCEPT = "--exclude=SC1090,SC1091,SC2034,SC2016,SC2015,SC2086"
# What openrc-run does to such a script.
OPENRC = """
ebegin() { echo "* $*"; }
eend() { return $1; }
mark_service_stopped() { :; }
RC_SVCNAME=$1
. "$2"
"$3"
"""
RC_SUBR = """
load_rc_config() { postfix_program=$PROGRAM; }
run_rc_command() { eval "\\$${1}_cmd"; }
"""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts(path: Path) -> None:
    done = subprocess.run(
        [need_tool("shellcheck"), "--shell=sh", "--severity=warning", EXCEPT, path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == ""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A postfix(1) that says what it was called with."""
    path = tmp_path / "postfix"
    path.write_text('#!/bin/sh\necho "$*" >>"$0.calls"\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("service", "action", "call"),
    [
        ("postfix", "start", "start"),
        ("postfix", "stop", "stop"),
        ("postfix", "reload", "reload"),
        ("postfix", "abort", "abort"),
        ("postfix.postfix-out", "start", "-c /etc/postfix-out start"),
        ("postfix.postfix-out", "status", "-c /etc/postfix-out status"),
    ],
)
def test_openrc(program: Path, service: str, action: str, call: str) -> None:
    command = ["sh", "-ec", OPENRC, "sh", service, str(PACKAGING / "openrc/postfix"), action]
    environment = {"POSTFIX": str(program), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert program.with_name("postfix.calls").read_text() == f"{call}\n"


@pytest.mark.parametrize("action", ["start", "stop", "status", "reload", "flush", "check"])
def test_freebsd(program: Path, tmp_path: Path, action: str) -> None:
    (tmp_path / "rc.subr").write_text(RC_SUBR)
    text = (PACKAGING / "freebsd/postfix").read_text()
    script = tmp_path / "script"
    script.write_text(text.replace("/etc/rc.subr", f"{tmp_path}/rc.subr"))
    subprocess.run(["sh", "-e", script, action], check=True,
                   env={"PROGRAM": str(program), "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert program.with_name("postfix.calls").read_text() == f"{action}\n"


def test_rpm(tmp_path: Path) -> None:
    rpmbuild = need_tool("rpmbuild")
    (tmp_path / "SOURCES").mkdir()
    names = ["commands", "daemons", "libmail", "master", "etc", "man", "docs", "packaging"]
    files = ["README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"]
    archive = tmp_path / "SOURCES/posthorn-0.1.0.tar.gz"
    subprocess.run(
        ["tar", "-czf", str(archive), "--transform=s,^,posthorn-0.1.0/,", "--exclude=__pycache__",
         *names, *files], cwd=ROOT, check=True,
    )  # fmt: skip
    spec = PACKAGING / "rpm/posthorn.spec"
    command = [rpmbuild, "--define", f"_topdir {tmp_path}", "--nodeps", "-bb", str(spec)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (package,) = tmp_path.glob("RPMS/noarch/*.rpm")
    query = ["rpm", "-qlp", str(package)]
    listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    wanted = ["/usr/sbin/sendmail", "/usr/libexec/postfix/master", "/etc/postfix/main.cf"]
    assert set(wanted) <= set(listed)


def test_modules_of_a_system_with_two_places(tmp_path: Path) -> None:
    """Where those in C are not beside those in Python, both are found."""
    program = str(ROOT / "packaging/install.py")
    command = ["python3", program, "--prefix=/usr", f"--destdir={tmp_path}",
               "--python-path=/usr/lib/x:/usr/lib64/x", "--deps=no", "--compile=no"]  # fmt: skip
    subprocess.run(command, check=True)
    text = (tmp_path / "usr/sbin/sendmail").read_text()
    assert "sys.path += ['/usr/lib/x', '/usr/lib64/x']" in text
