"""Changing main.cf or master.cf: a crash leaves the old file or the new one, and nobody's is lost.

The new text goes to NAME.tmp, which is locked while the old one is read, and takes the old
file's place, with its mode and owner, when it is on disk.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from libmail.config.errors import ConfigError
from libmail.config.main_cf import read_text
from libmail.files.durable import sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["edit_file"]


def edit_file(path: str, edit: Callable[[str], str]) -> None:
    """Replace the file by what edit makes of its text.

    Raises ConfigError; then it is as before, or as wanted but perhaps not on disk. A symbolic
    link is replaced by a file, as Postfix does, and what it led to stays.
    """
    temporary = f"{path}.tmp"
    try:
        fd = _locked(temporary)
    except OSError as error:
        raise ConfigError(f"open {temporary}: {error.strerror}") from error
    try:
        data = edit(_old_text(path)).encode("utf-8", "surrogateescape")
        _write(fd, path, data)
        os.rename(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise ConfigError(f"edit {path}: {error.strerror}") from error
    except ConfigError:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    try:
        sync_directory(os.path.dirname(path) or ".")
    except OSError as error:
        raise ConfigError(f"sync directory of {path}: {error.strerror}") from error


def _old_text(path: str) -> str:
    try:
        return read_text(path)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            raise ConfigError(f"open {path} for reading: {error.__cause__.strerror}") from error
        raise


def _locked(temporary: str) -> int:
    """An empty file of that name that only we write; waits for others who edit."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_named(fd, temporary):
                os.ftruncate(fd, 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _is_named(fd: int, path: str) -> bool:
    """Whether the file still has that name, which who held the lock before may have moved."""
    ours = os.fstat(fd)
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _write(fd: int, path: str, data: bytes) -> None:
    old = os.stat(path)
    new = os.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o7777)
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)
