"""postlock: locks, the command it runs, exit status."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from commands.postlock import main

# Exits with 7 if another process cannot lock the file that it gets as its argument.
PROBE = """
import fcntl, os, sys
file = open(sys.argv[1], "a")
try:
    getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(7 + os.path.exists(sys.argv[1] + ".lock"))
"""


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    text = "deliver_lock_attempts = 1\ndeliver_lock_delay = 1\n"
    (tmp_path / "main.cf").write_text(text)
    return ["-c", str(tmp_path)]


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", *arguments]


@pytest.mark.parametrize(
    ("style", "call", "status"),
    [
        ([], "lockf", 8),
        (["-l", "fcntl"], "lockf", 7),
        (["-l", "flock, dotlock"], "flock", 8),
        (["-l", "dotlock"], "flock", 0),
    ],
)
def test_locked_while_the_command_runs(
    config: list[str], tmp_path: Path, style: list[str], call: str, status: int
) -> None:
    folder = tmp_path / "mbox"
    command = python(PROBE, str(folder), call)
    assert main([*config, *style, str(folder), *command]) == status
    assert folder.read_bytes() == b""
    assert not (tmp_path / "mbox.lock").exists()


def test_status_of_the_command(config: list[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "mbox")
    assert main([*config, folder, "sh", "-c", "exit 3"]) == 3
    assert main([*config, folder, "sh", "-c", "kill -9 $$"]) == 1


@pytest.mark.parametrize("command", ["no-such-command", "/etc/passwd"])
def test_no_command(
    config: list[str], tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*config, str(tmp_path / "mbox"), command]) == 1
    assert f"postlock: fatal: execvp {command}: " in capsys.readouterr().err


def test_locked_by_another(
    config: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mbox"
    with folder.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main([*config, "-l", "flock", str(folder), "true"]) == 75
    (tmp_path / "mbox.lock").touch()
    assert main([*config, str(folder), "true"]) == 75
    assert capsys.readouterr().err.splitlines() == [
        f"postlock: fatal: open file {folder}: unable to lock for exclusive access: "
        "Resource temporarily unavailable",
        f"postlock: fatal: open file {folder}: unable to create lock file {folder}.lock: "
        "File exists",
    ]
    assert os.path.exists(tmp_path / "mbox.lock")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "fatal: usage: postlock "),
        (["mbox"], "fatal: usage: postlock "),
        (["-x"], "invalid option -- 'x'\npostlock: fatal: usage: "),
        (["-l"], "option requires an argument -- 'l'\n"),
        (["-l", "what", "mbox", "true"], 'unknown mailbox_delivery_lock value "what" in "what"'),
        (["/nowhere/mbox", "true"], "file /nowhere/mbox: unable to create lock file /nowhere/mbox"),
    ],
)
def test_failures(
    config: list[str], argv: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*config, *argv]) == 75
    assert text in capsys.readouterr().err
