"""The lock files that make master the only one: pid/master.pid and data_directory/master.lock.

The first is taken for the queue directory, the second for the data directory, which instances
must not share either. Both hold the process id and are locked with flock(2), so that
commands can find out whether the system runs, and a lock never outlives its process.
"""

import fcntl
import os
from typing import Final

__all__ = ["PID_FILE", "LockHeld", "is_running", "open_lock", "read_pid", "write_pid"]

PID_FILE: Final = "pid/master.pid"  # below the queue directory
_WIDTH: Final = 32  # the number is padded, so that it is replaced by one write


class LockHeld(Exception):
    """Another process has the lock. The text is fit to follow "fatal: "."""


def open_lock(path: str) -> int:
    """The descriptor of the lock file, created if missing, with the lock.

    Raises LockHeld, OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(fd)
        reason = os.strerror(err.errno or 0)
        raise LockHeld(f"open lock file {path}: unable to set exclusive lock: {reason}") from err
    return fd


def write_pid(fd: int) -> None:
    """Put this process's id into a lock file."""
    os.pwrite(fd, f"{os.getpid():>{_WIDTH}}\n".encode(), 0)
    os.ftruncate(fd, _WIDTH + 1)


def is_running(path: str) -> bool:
    """Whether somebody holds the lock on the file. Raises OSError if it may not be looked at."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def read_pid(path: str) -> int:
    """The process id in a lock file; 0 if there is none."""
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read(_WIDTH + 1))
    except (OSError, ValueError):
        return 0
