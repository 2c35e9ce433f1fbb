"""Whether master runs, asked by many at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from libmail.service.master_lock import LockHeld, is_running, open_lock, read_pid, write_pid


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "master.pid")


def test_there_is_one_master(path: str) -> None:
    assert not is_running(path)
    first = open_lock(path)
    write_pid(first)
    assert is_running(path)
    assert read_pid(path) == os.getpid()
    with pytest.raises(LockHeld, match="unable to set exclusive lock: Resource temporarily unav"):
        open_lock(path)
    os.close(first)
    assert not is_running(path)
    os.close(open_lock(path))


def test_who_looks_does_not_disturb_others_who_look(path: str) -> None:
    with open(path, "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_running(path)


def test_who_looks_does_not_keep_master_from_starting(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(path, "w") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        monkeypatch.setattr("time.sleep", lambda seconds: fcntl.flock(other, fcntl.LOCK_UN))
        fd = open_lock(path)
    assert is_running(path)
    os.close(fd)
