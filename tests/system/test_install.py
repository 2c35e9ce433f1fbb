"""What make install leaves: complete, isolated from the environment, repeatable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.system.harness import ROOT, installation

COMMANDS = [
    "mailq",
    "newaliases",
    "postalias",
    "postcat",
    "postconf",
    "postfix",
    "postkick",
    "postlog",
    "postmap",
    "postqueue",
    "postsuper",
    "sendmail",
]
DAEMONS = [
    "bounce",
    "cleanup",
    "discard",
    "error",
    "flush",
    "local",
    "master",
    "pickup",
    "postlogd",
    "qmgr",
    "showq",
    "smtp",
    "smtpd",
    "trivial-rewrite",
    "virtual",
]


def install(top: Path, *options: str) -> None:
    command = [sys.executable, str(ROOT / "packaging/install.py"), f"--prefix={top}", *options]
    subprocess.run(command, check=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_programs_are_there() -> None:
    assert set(COMMANDS) - names(installation() / "sbin") == set()
    assert set(DAEMONS) - names(installation() / "libexec/postfix") == set()


def test_commands_get_their_arguments(tmp_path: Path) -> None:
    """And they know where they are installed."""
    sbin = installation() / "sbin"
    done = subprocess.run(
        [sbin / "postconf", "-d", "-h", "config_directory", "daemon_directory"],
        capture_output=True,
        text=True,
        cwd="/",
    )
    prefix = installation()
    assert done.stdout.split() == [f"{prefix}/etc/postfix", f"{prefix}/libexec/postfix"], (
        done.stderr
    )
    (tmp_path / "main.cf").write_text("")
    (tmp_path / "table").write_text("key value\n")
    spec = f"lmdb:{tmp_path}/table"
    for arguments in ([spec], ["-q", "key", spec]):
        command = [str(sbin / "postmap"), "-c", str(tmp_path), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "value\n"


def test_scripts_ignore_the_environment(tmp_path: Path) -> None:
    (tmp_path / "commands.py").write_text("raise SystemExit(99)")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(98)")
    done = subprocess.run(
        [installation() / "sbin/postconf", "-d", "-h", "mail_name"],
        env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)},
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.stdout == b"Postfix\n", done.stderr


def test_configuration_is_never_replaced(tmp_path: Path) -> None:
    install(tmp_path, "--deps=no")
    main_cf = tmp_path / "etc/postfix/main.cf"
    main_cf.write_text("mine = yes\n")
    install(tmp_path, "--deps=no")
    assert main_cf.read_text() == "mine = yes\n"
    assert (tmp_path / "etc/postfix/master.cf").is_file()


def test_destdir_and_directories(tmp_path: Path) -> None:
    options = ["--deps=no", f"--destdir={tmp_path}", "--sysconfdir=/etc/postfix"]
    command = [sys.executable, str(ROOT / "packaging/install.py"), "--prefix=/usr", *options]
    subprocess.run([*command, "--interpreter=/usr/bin/python3"], check=True)
    assert (tmp_path / "etc/postfix/main.cf").is_file()
    script = (tmp_path / "usr/sbin/sendmail").read_text()
    assert script.startswith("#!/usr/bin/python3 -IS\n")
    assert str(tmp_path) not in script
    assert not (tmp_path / "usr/lib/postfix/uvloop").exists()


def test_umask_does_not_matter(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        install(tmp_path / "prefix", "--deps=no")
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "prefix").rglob("*")}
    assert modes <= {0o644, 0o755}
