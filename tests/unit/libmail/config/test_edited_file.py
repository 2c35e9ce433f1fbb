"""Replacing a configuration file: crashes, errors, links."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from libmail.config import ConfigError
from libmail.config.edited_file import edit_file

OLD = b"# top\nfoo = 1\n"
NEW = b"# top\nfoo = 2\n"
CALLS = ("open", "fstat", "stat", "ftruncate", "fchown", "fchmod", "write", "fsync", "rename",
         "close")  # fmt: skip


def _changed(text: str) -> str:
    return text.replace("1", "2")


class _Crash(BaseException):
    pass


class _Injector:
    """Counts system calls and fails the one with the given number; a write fails half done."""

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.left = fail_at
        self.error = error

    def wrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            self._wrap(monkeypatch, os, name)
        self._wrap(monkeypatch, fcntl, "flock")

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*args: object, **named: object) -> object:
            self.left -= 1
            if self.left == 0:
                if name == "write":
                    descriptor, data = args
                    assert isinstance(data, bytes)
                    real(descriptor, data[: len(data) // 2])
                if name == "close":
                    real(*args)
                raise self.error
            return real(*args, **named)

        monkeypatch.setattr(module, name, call)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_bytes(OLD)
    (tmp_path / "main.cf").chmod(0o640)
    (tmp_path / "master.cf").write_bytes(b"")
    return tmp_path


def _edit(directory: Path, fail_at: int, error: BaseException) -> int:
    """How many calls were left when the edit was done; above 0, it was not disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        injector = _Injector(fail_at, error)
        injector.wrap(patch)
        try:
            edit_file(str(directory / "main.cf"), _changed)
        except (type(error), ConfigError):
            pass
        return injector.left


def test_crashes(directory: Path) -> None:
    path = directory / "main.cf"
    for fail_at in range(1, 100):
        path.write_bytes(OLD)
        left = _edit(directory, fail_at, _Crash())
        assert path.read_bytes() in (OLD, NEW)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        edit_file(str(path), _changed)
        assert path.read_bytes() == NEW
        assert sorted(file.name for file in directory.iterdir()) == ["main.cf", "master.cf"]
        if left > 0:
            break
    assert fail_at > 10


def test_errors(directory: Path) -> None:
    path = directory / "main.cf"
    for fail_at in range(1, 100):
        path.write_bytes(OLD)
        left = _edit(directory, fail_at, OSError(errno.ENOSPC, "No space left on device"))
        assert path.read_bytes() in (OLD, NEW)
        if left > 0:
            break
    assert path.read_bytes() == NEW


def test_symbolic_link_is_replaced(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "shared.cf"
    target.write_bytes(OLD)
    (directory / "main.cf").unlink()
    (directory / "main.cf").symlink_to(target)
    edit_file(str(directory / "main.cf"), _changed)
    assert not (directory / "main.cf").is_symlink()
    assert (directory / "main.cf").read_bytes() == NEW
    assert target.read_bytes() == OLD
