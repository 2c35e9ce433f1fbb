"""spawn(8): its attributes, and a command that has a connection."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket

import pytest

from daemons.spawn import _attributes
from libmail.execution.result import CommandResult
from libmail.execution.runner import CommandFailed, Surroundings, run_on_socket
from libmail.log import Fatal
from libmail.privileges import Identity

ME = Identity(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid(), (os.getegid(),))
USER = "nobody" if os.geteuid() == 0 else ME.name


def test_attributes() -> None:
    user, argv = _attributes((f"user={USER}", "argv=/bin/x", "-o", "a=b"), ME.name, "postfix-net")
    assert user.name == USER
    assert argv == ("/bin/x", "-o", "a=b")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("", "missing user= attribute"),
        ("argv=/bin/x", "missing user= attribute"),
        (f"user={USER}", "missing argv= attribute"),
        (f"user={USER} argv=", "missing argv= attribute"),
        (f"user={USER} flags=D argv=x", "unknown attribute name: flags=D"),
        ("user=no-such-user argv=x", "get_service_attr: unknown username: no-such-user"),
    ],
)
def test_mistakes(arguments: str, problem: str) -> None:
    with pytest.raises(Fatal) as caught:
        _attributes(tuple(arguments.split()), ME.name, "postfix-net")
    assert str(caught.value) == problem


def serve(command: str, said: bytes, limit: float = 60.0) -> tuple[CommandResult, bytes]:
    """What becomes of a command, and what its client gets."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(said)
        ours.shutdown(socket.SHUT_WR)
        argv = ("/bin/sh", "-c", command)
        place = Surroundings(time_limit=limit)
        environment = {"PATH": "/usr/bin:/bin"}
        result = asyncio.run(run_on_socket(argv, theirs, ME, environment, place))
        return result, ours.recv(4096)


def test_connection() -> None:
    result, answer = serve("read line; echo got $line; echo err >&2; exit 3", b"hello\n")
    assert (result, answer) == (CommandResult(3, ""), b"got hello\nerr\n")


def test_time_limit() -> None:
    result, answer = serve("echo early; sleep 60 & sleep 60", b"", 0.5)
    assert (result, answer) == (CommandResult(None, ""), b"early\n")


def test_no_such_command() -> None:
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(CommandFailed, match="execvp /nonexistent: No such file or directory"):
        asyncio.run(run_on_socket(("/nonexistent",), theirs, ME, {}, Surroundings()))
    assert theirs.fileno() == -1
