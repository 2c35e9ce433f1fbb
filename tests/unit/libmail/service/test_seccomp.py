"""The filter of system calls, in processes that are there for it."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from libmail.service.seccomp import forbid

_PASSED = 255


def outcome(attempt: Callable[[], object], *, names: bool = True) -> int:
    """The error number of the attempt in a process with a filter, or _PASSED."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert forbid(names=names)
            attempt()
            status = _PASSED
        except OSError as err:
            status = err.errno or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for_thread() -> None:
    thread = threading.Thread(target=os.getpid)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "attempt",
    [
        os.fork,
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.kill(os.getppid(), 0),
        lambda: os.kill(-1, 0),
        lambda: os.pidfd_open(os.getppid()),
    ],
)
def test_refused(attempt: Callable[[], object]) -> None:
    assert outcome(attempt) == errno.EPERM
    assert outcome(attempt, names=False) == errno.EPERM


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: socket.getaddrinfo("localhost", 25),
        socket.socketpair,
        lambda: os.listdir("/"),
        lambda: os.kill(os.getpid(), 0),
        wait_for_thread,
    ],
)
def test_allowed(attempt: Callable[[], object]) -> None:
    assert outcome(attempt) == _PASSED


def test_names(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    attempts: tuple[Callable[[], object], ...] = (
        there.unlink,
        lambda: there.rename(tmp_path / "elsewhere"),
        lambda: (tmp_path / "new").touch(),
        lambda: (tmp_path / "new").mkdir(),
        lambda: (tmp_path / "new").symlink_to("there"),
        lambda: there.chmod(0o777),
        lambda: os.open(tmp_path, os.O_TMPFILE | os.O_WRONLY),
    )
    for attempt in attempts:
        assert outcome(attempt) == errno.EPERM
    assert outcome(there.read_bytes) == _PASSED
    assert outcome(there.unlink, names=False) == _PASSED


@pytest.mark.parametrize("family", [socket.AF_NETLINK, socket.AF_PACKET, 38, 40])
def test_sockets(family: int) -> None:
    assert outcome(lambda: socket.socket(family, socket.SOCK_RAW)) == errno.EAFNOSUPPORT
