"""Queue files that are used again: what a delivered message leaves is the file of a later one.

To make a file, and to remove it, costs the file system more than all else that is done with it:
an inode and blocks are taken and given back, in the journal each time. So qmgr(8) moves the file
of a message that is over into the directory `spare`, and cleanup(8) takes it from there and
writes over it. It is bounded: small files only, `queue_file_reuse_limit` names, each of which is
replaced when its turn comes again, and what nobody has taken for a moment is removed, as
delivered mail is not to stay on disk.

What had the file before must not see what comes after it:

- A delivery agent that is still at work, or was broken into, may have kept its descriptor. The
  kernel is asked: a write lease (fcntl(2), F_SETLEASE) is granted only while nobody else has the
  file open, a descriptor on its way through a socket and a mapping included. Without leases
  nothing is used again.
- sendfile(2) leaves pages of the file in queues of sockets, where a peer may read them late:
  only files that are small enough to be read by one system call are used again, and these are
  never sent so.
- What the old message had beyond the end of the new one is cut off before the file is complete.

A short queue id is an inode and the microseconds of a second: the fewer inodes there are, the
sooner one comes again in the log. So each `_USES`-th file goes in spite of all.

What a power failure makes of such a file, and how that is found out, is told by checksum.py.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

__all__ = ["REUSABLE_SIZE", "NewFile", "SpareFiles", "SpareSupply"]

REUSABLE_SIZE: Final = 16384  # octets of a file, at most
_DIRECTORY: Final = "spare"
_LOOK_AGAIN: Final = 0.02  # seconds between two looks for more
_USES: Final = 8  # of a file, on average
_OPEN_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SET_LEASE: Final[int | None] = getattr(fcntl, "F_SETLEASE", None)  # Linux has it


class SpareFiles:
    """The side of qmgr(8): keeps files whose messages are over."""

    def __init__(self, limit: int) -> None:
        """limit: how many at most; 0 for none."""
        self._names = [f"{_DIRECTORY}/{number:02x}" for number in range(limit)]
        self._next = 0
        self._offered = 0
        self.possible: Final = bool(limit) and _SET_LEASE is not None

    def keep(self, path: str) -> bool:
        """Move a file there, in the place of the one that has been there for longest.

        Returns whether it was done. May run in a thread, one at a time.
        """
        at = self._next
        self._offered += 1
        if self._offered % _USES == 0:
            return False
        try:
            os.rename(path, self._names[at])
        except OSError:
            return False
        self._next = (at + 1) % len(self._names)
        return True

    def empty(self) -> None:
        """Remove what is there. May run in a thread."""
        for name in _names():
            _remove(f"{_DIRECTORY}/{name}")


class NewFile(NamedTuple):
    """A file for a message, of mode 0600, open. size: octets of an old one that are in it.

    path: to be renamed.
    """

    fd: int
    inode: int
    size: int
    path: str


class SpareSupply:
    """The side of cleanup(8): takes files for new messages.

    Its process ignores SIGIO: the kernel sends it when somebody opens a file during the moment of
    the lease.
    """

    def __init__(self) -> None:
        self._names: Iterable[str] = iter(())
        self._looked = -_LOOK_AGAIN

    def take(self) -> NewFile | None:
        """One for the caller, who gives it another name. None: there is none."""
        if _SET_LEASE is None:
            return None
        while True:
            for name in self._names:
                spare = _claim(f"{_DIRECTORY}/{name}", _SET_LEASE)
                if spare is not None:
                    return spare
            now = time.monotonic()
            if now - self._looked < _LOOK_AGAIN:
                return None
            self._looked = now
            self._names = iter(_names())


def _names() -> list[str]:
    try:
        return os.listdir(_DIRECTORY)
    except OSError:  # an installation that does not have it yet
        return []


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _claim(path: str, set_lease: int) -> NewFile | None:
    """The file, if nobody else has it open; if somebody has, it is removed."""
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        sized = 0 < info.st_size <= REUSABLE_SIZE
        if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and sized:
            fcntl.fcntl(fd, set_lease, fcntl.F_WRLCK)
            fcntl.fcntl(fd, set_lease, fcntl.F_UNLCK)
            os.fchmod(fd, 0o600)
            return NewFile(fd, info.st_ino, info.st_size, path)
    except OSError:
        pass
    os.close(fd)
    _remove(path)
    return None
