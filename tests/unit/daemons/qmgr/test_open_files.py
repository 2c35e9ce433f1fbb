"""The open files that go with requests."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from daemons.qmgr.open_files import OpenFiles
from libmail.ipc.messages import QueueId
from libmail.queue.file import open_queue_file
from tests.unit.daemons.qmgr.fakes import DIRECTORY, make_directories, put

NOW = 1e9


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenFiles:
    monkeypatch.chdir(tmp_path)
    make_directories(tmp_path)
    return OpenFiles(DIRECTORY)


def opened(queue_id: QueueId) -> int:
    return open_queue_file(DIRECTORY.path("active", queue_id), writable=True)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_was_read_just_now_is_not_opened_again(files: OpenFiles) -> None:
    queue_id = put("active", ["a@b"])
    fd = opened(queue_id)
    files.keep(queue_id, fd, NOW)
    assert files.take(queue_id, NOW + 0.5) == fd
    os.close(fd)
    again = files.take(queue_id, NOW + 0.5)
    assert os.pwrite(again, b"D", 0) == 1  # the agent marks recipients in it
    os.close(again)


@pytest.mark.parametrize("later", [5.0, -5.0])  # the clock may have been set
def test_after_a_moment_the_name_counts(files: OpenFiles, later: float) -> None:
    """postsuper may have removed the file, or put it on hold."""
    queue_id = put("active", ["a@b"])
    fd = opened(queue_id)
    files.keep(queue_id, fd, NOW)
    os.rename(DIRECTORY.path("active", queue_id), DIRECTORY.path("hold", queue_id))
    with pytest.raises(FileNotFoundError):
        files.take(queue_id, NOW + later)
    assert not is_open(fd)


def test_a_copy_carries_the_lock(files: OpenFiles) -> None:
    queue_id = put("active", ["a@b"])
    fd = files.take(queue_id, NOW)
    copy = os.dup(fd)  # what the agent gets
    os.close(fd)
    with open(DIRECTORY.path("active", queue_id), "rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(copy)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_only_so_many_are_kept(files: OpenFiles) -> None:
    """The oldest, which are asked for next, as long as they may be used."""
    names = [put("active", ["a@b"]) for _ in range(258)]
    fds = [opened(name) for name in names]
    for name, fd in zip(names[:-1], fds[:-1], strict=True):
        files.keep(name, fd, NOW)
    assert [is_open(fd) for fd in fds[:-1]] == [True] * 256 + [False]
    files.keep(names[-1], fds[-1], NOW + 1)
    assert [is_open(fd) for fd in fds] == [False] + [True] * 255 + [False, True]
    files.drop(names[-1])
    files.drop(names[0])  # which is not kept any more
    assert [is_open(fd) for fd in fds[1:]] == [True] * 255 + [False] * 2
    files.close()
    assert not any(is_open(fd) for fd in fds)
