"""Commands that take a message: how they are started, and what their end means."""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libmail.execution.result import CommandResult, judge
from libmail.execution.runner import (
    Surroundings,
    exported,
    resolve_argv,
    run_command,
)
from libmail.privileges import Identity

ME = Identity(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), (os.getegid(),))
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def run(
    command: str,
    pieces: Iterable[bytes] = (b"Subject: x\n\nbody\n",),
    *,
    limit: float = 20.0,
    folder: str | None = None,
    root: str | None = None,
) -> CommandResult:
    async def main() -> CommandResult:
        return await run_command(
            resolve_argv(command),
            pieces,
            ME,
            ENVIRONMENT,
            Surroundings(folder=folder, root=root, time_limit=limit),
            program="local",
        )

    return asyncio.run(main())


ARGV = [
    ("plain", "/usr/bin/vacation -a alice", "", ("/usr/bin/vacation", "-a", "alice")),
    ("magic", "cat >x", "", ("sh", "-c", "cat >x")),
    ("quotes", 'procmail "$EXTENSION"', "", ("sh", "-c", 'procmail "$EXTENSION"')),
    ("built-in", "exit 67", "", ("sh", "-c", "exit 67")),
    ("empty", "", "", ("sh", "-c", "")),
    ("own shell", "x y", "/bin/smrsh -c", ("/bin/smrsh", "-c", "x y")),
]


@pytest.mark.parametrize(
    ("command", "shell", "argv"), [c[1:] for c in ARGV], ids=[c[0] for c in ARGV]
)
def test_argv(command: str, shell: str, argv: tuple[str, ...]) -> None:
    assert resolve_argv(command, shell) == argv


VERDICTS = [
    ("fine", 0, "", "sent", "2.0.0", ""),
    ("fine, with output", 0, "2.1.5 x\n", "sent", "2.0.0", ""),
    ("unknown status", 1, "", "bounced", "5.3.0", 'Command died with status 1: "cmd"'),
    ("output", 1, "a\nb\n", "bounced", "5.3.0",
     'Command died with status 1: "cmd". Command output: a b '),
    ("user unknown", 67, "", "bounced", "5.1.1", "user unknown"),
    ("tempfail", 75, "", "deferred", "4.3.0", "temporary failure"),
    ("tempfail, output", 75, "x", "deferred", "4.3.0", "temporary failure. Command output: x"),
    ("os error", 71, "", "deferred", "4.3.0", "system resource problem"),
    ("signal", -9, "", "deferred", "4.3.0", 'Command died with signal 9: "cmd"'),
    ("too long", None, "", "bounced", "5.3.0", 'Command time limit exceeded: "cmd"'),
    ("code beats status", 75, "5.7.9 nope\n", "bounced", "5.7.9", "nope "),
    ("temporary code", 69, "4.2.1 busy\n", "deferred", "4.2.1", "busy "),
    ("success is no failure", 1, "2.1.5 fine\n", "bounced", "5.0.0", "fine "),
    ("code alone", 69, "4.2.1", "deferred", "4.2.1", "service unavailable"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "output", "kind", "dsn", "reason"),
    [c[1:] for c in VERDICTS],
    ids=[c[0] for c in VERDICTS],
)
def test_verdict(status: int | None, output: str, kind: str, dsn: str, reason: str) -> None:
    verdict = judge("cmd", CommandResult(status, output))
    assert (verdict.kind, verdict.dsn, verdict.reason) == (kind, dsn, reason)


@given(st.integers(-64, 255) | st.none(), st.text(max_size=30))
@settings(max_examples=60)
def test_verdict_is_consistent(status: int | None, output: str) -> None:
    verdict = judge("cmd", CommandResult(status, output))
    assert verdict.dsn[0] == {"sent": "2", "deferred": "4", "bounced": "5"}[verdict.kind]
    assert (verdict.kind == "sent") == (status == 0)


def test_content_and_output() -> None:
    result = run("cat; echo err >&2", (b"one\n", b"two\n"))
    assert result == CommandResult(0, "one\ntwo\nerr\n")


def test_much_content() -> None:
    assert run("wc -c", (b"x" * 65536 for _ in range(64))).output.strip() == str(65536 * 64)


def test_content_not_read() -> None:
    assert run("exit 3", (b"x" * 65536 for _ in range(64))).status == 3


def test_output_is_bounded() -> None:
    result = run("yes | head -c 1000000")
    assert result.status == 0
    assert 0 < len(result.output) <= 4096


def test_time_limit_kills_the_group() -> None:
    began = time.monotonic()
    result = run("sleep 60 & echo $!; sleep 60", limit=1.5)
    assert time.monotonic() - began < 50
    assert result.status is None
    for _ in range(1500):
        try:
            os.kill(int(result.output), 0)
        except ProcessLookupError:
            break
        with open(f"/proc/{int(result.output)}/stat", "rb") as file:
            if b") Z " in file.read():
                break
        time.sleep(0.02)
    else:
        pytest.fail("the child in the background lives")


def test_background_is_not_waited_for() -> None:
    began = time.monotonic()
    assert run("sleep 30 &").status == 0
    assert time.monotonic() - began < 25


def test_environment_and_folder(tmp_path: object) -> None:
    result = run("pwd; env; umask", folder=str(tmp_path))
    lines = result.output.splitlines()
    assert lines[0] == str(tmp_path)
    assert "PATH=/usr/bin:/bin" in lines
    assert lines[-1] == "0077"
    assert not any(line.startswith("HOME=") for line in lines)


def test_no_such_command() -> None:
    result = run("/nonexistent/command")
    assert result.status == 75
    assert result.output == (
        "local: fatal: execvp /nonexistent/command: No such file or directory\n"
    )


@pytest.mark.parametrize("place", [{"folder": "/nonexistent"}, {"root": "/nonexistent"}])
def test_no_such_place(place: dict[str, str]) -> None:
    here = os.getcwd()
    assert run("cat", **place) == CommandResult(75, "")  # type: ignore[arg-type]
    assert os.getcwd() == here


def test_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("LANG", raising=False)
    names = ("TZ", "LANG", "A=b=c", "{ B = two words }", "C=")
    assert exported(names) == {
        "PATH": "/usr/bin:/bin", "TZ": "UTC", "A": "b=c", "B": "two words", "C": "",
    }  # fmt: skip
