"""Delivery to a Maildir: a file in tmp/, on disk, then moved to new/.

Names are unique without locks: time, device, inode, microseconds and host.
"""

import errno
import itertools
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from libmail.files.commit import Steps
from libmail.log import LOG
from libmail.privileges import Identity

__all__ = ["MaildirWriter", "warn_of_maildir"]


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


def warn_of_maildir(owner: Identity, problem: str) -> None:
    """Log what probably is behind a refused access to a Maildir. problem: with the file's name."""
    LOG.warning(f"maildir access problem for UID/GID={owner.uid}/{owner.gid}: {problem}")
    LOG.warning("perhaps you need to create the maildirs in advance")


class MaildirWriter:
    """Writes messages into Maildirs; in threads, too, which then share the one of their process."""

    __slots__ = ("_count", "_end", "_host", "_limit")

    def __init__(self, host: str, *, size_limit: int = 0) -> None:
        """To be made in the process that delivers. size_limit: octets of a file, 0 for none."""
        self._host = host
        self._limit = size_limit
        self._count = itertools.count(1)
        self._end = f".P{os.getpid()}Q"

    def deliver(self, folder: str, pieces: Iterable[bytes]) -> Steps[None]:
        """Write a message; it is durable and visible in new/ at the end.

        folder: without a slash at its end. Runs with the rights of the mailbox's owner. Raises
        OSError, whose strerror is what a report says; nothing is left behind then.
        """
        host = self._host
        temporary = f"{folder}/tmp/{int(time.time())}{self._end}{next(self._count)}.{host}"
        try:
            fd = _create(temporary, folder)
        except OSError as err:
            text = f"create maildir file {temporary}: {err.strerror}"
            raise OSError(err.errno, text, temporary) from err
        try:
            try:
                self._write(fd, pieces)
                yield fd
                status = os.fstat(fd)
            except OSError as err:
                text = f"error writing message: {err.strerror}"
                raise OSError(err.errno, text, temporary) from err
            finally:
                os.close(fd)
            now, part = divmod(time.time_ns() // 1000, 1_000_000)
            name = f"{now}.V{status.st_dev:x}I{status.st_ino:x}M{part}.{host}"
            os.rename(temporary, f"{folder}/new/{name}")
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _write(self, fd: int, pieces: Iterable[bytes]) -> None:
        size = 0
        for piece in pieces:
            size += len(piece)
            if self._limit and size > self._limit:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            written = os.write(fd, piece)
            while written < len(piece):
                written += os.write(fd, memoryview(piece)[written:])
