"""Delivery to a Maildir: a file in tmp/, on disk, then moved to new/.

Names are unique without locks: time, device, inode, microseconds and host.
"""

import errno
import itertools
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from libmail.log import LOG
from libmail.privileges import Identity

__all__ = ["deliver_to_maildir", "warn_of_maildir"]

_DELIVERIES: Final = itertools.count(1)  # of this process, whose threads deliver side by side


def _create(name: str, folder: str) -> int:
    """A new file in tmp/; makes the Maildir where there is none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600)
    except FileNotFoundError:
        for part in ("cur", "new", "tmp"):  # whoever finds tmp finds all of it
            _make_folder(f"{folder}/{part}")
    except FileExistsError:
        os.unlink(name)  # left behind by a process of this number that was killed this second
    return os.open(name, flags, 0o600)


def _make_folder(path: str) -> None:
    """Make a directory, and those above it, for its owner alone; others may do so meanwhile."""
    with suppress(FileExistsError):  # if it is no directory, creating the file fails
        try:
            os.mkdir(path, 0o700)
        except FileNotFoundError:
            _make_folder(os.path.dirname(path))
            os.mkdir(path, 0o700)


def _write_all(fd: int, pieces: Iterable[bytes], limit: int) -> None:
    size = 0
    for piece in pieces:
        size += len(piece)
        if limit and size > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]
    os.fsync(fd)


def warn_of_maildir(owner: Identity, problem: str) -> None:
    """Log what probably is behind a refused access to a Maildir. problem: with the file's name."""
    LOG.warning(f"maildir access problem for UID/GID={owner.uid}/{owner.gid}: {problem}")
    LOG.warning("perhaps you need to create the maildirs in advance")


def deliver_to_maildir(
    folder: str, pieces: Iterable[bytes], host: str, *, size_limit: int = 0
) -> None:
    """Write a message; it is durable and visible in new/ after return.

    folder: without a slash at its end. size_limit: octets of the file, 0 for none. Runs with the
    rights of the mailbox's owner. Raises OSError, whose strerror is what a report says; nothing is
    left behind then.
    """
    number = next(_DELIVERIES)
    temporary = f"{folder}/tmp/{int(time.time())}.P{os.getpid()}Q{number}.{host}"
    try:
        fd = _create(temporary, folder)
    except OSError as err:
        text = f"create maildir file {temporary}: {err.strerror}"
        raise OSError(err.errno, text, temporary) from err
    try:
        try:
            _write_all(fd, pieces, size_limit)
            status = os.fstat(fd)
        except OSError as err:
            text = f"error writing message: {err.strerror}"
            raise OSError(err.errno, text, temporary) from err
        finally:
            os.close(fd)
        now = time.time_ns() // 1000
        name = f"{now // 1_000_000}.V{status.st_dev:x}I{status.st_ino:x}M{now % 1_000_000}.{host}"
        os.rename(temporary, f"{folder}/new/{name}")
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
