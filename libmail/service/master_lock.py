"""The lock files that make master the only one: pid/master.pid and data_directory/master.lock.

The first is taken for the queue directory, the second for the data directory, which instances
must not share either. Both hold the process id and are locked with flock(2), so that
commands can find out whether the system runs, and a lock never outlives its process. Who only
looks takes a shared lock for a moment: that hinders nobody else who looks, and a master that
starts tries again.
"""

import errno
import fcntl
import os
import time
from typing import Final

from libmail.files.safe_open import safe_open

__all__ = ["PID_FILE", "LockHeld", "check_free", "is_running", "open_lock", "read_pid", "write_pid"]

PID_FILE: Final = "pid/master.pid"  # below the queue directory
_WIDTH: Final = 32  # the number is padded, so that it is replaced by one write
_TRIES: Final = 100
_PAUSE: Final = 0.01  # seconds; who looks is gone long before


class LockHeld(Exception):
    """Another process has the lock. The text is fit to follow "fatal: "."""


def open_lock(path: str) -> int:
    """The descriptor of the lock file, created if missing, with the lock.

    Raises LockHeld, OSError.
    """
    fd = safe_open(path, os.O_RDWR | os.O_CREAT, follow=False)
    for _ in range(_TRIES):
        if _lock(fd, fcntl.LOCK_EX):
            return fd
        if not _lock(fd, fcntl.LOCK_SH):
            break  # there is another master
        fcntl.flock(fd, fcntl.LOCK_UN)
        time.sleep(_PAUSE)
    os.close(fd)
    raise _held(path)


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(path: str) -> LockHeld:
    reason = os.strerror(errno.EAGAIN)
    return LockHeld(f"open lock file {path}: unable to set exclusive lock: {reason}")


def write_pid(fd: int) -> None:
    """Put this process's id into a lock file."""
    os.pwrite(fd, f"{os.getpid():>{_WIDTH}}\n".encode(), 0)
    os.ftruncate(fd, _WIDTH + 1)


def check_free(path: str) -> None:
    """Raises LockHeld if a master has the lock, OSError if the file may not be looked at."""
    try:
        fd = safe_open(path, os.O_RDWR, follow=False)
    except FileNotFoundError:
        return
    try:
        if not _lock(fd, fcntl.LOCK_SH):
            raise _held(path)
    finally:
        os.close(fd)


def is_running(path: str) -> bool:
    """Whether a master has the lock. Raises OSError as `check_free`."""
    try:
        check_free(path)
    except LockHeld:
        return True
    return False


def read_pid(path: str) -> int:
    """The process id in a lock file; 0 if there is none."""
    try:
        with open(path, encoding="ascii", opener=safe_open) as stream:
            return int(stream.read(_WIDTH + 1))
    except (OSError, ValueError):
        return 0
