"""An mbox file: lock it, append a message, and take back what could not be written whole."""

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from libmail.files.commit import Steps
from libmail.log import LOG

__all__ = [
    "LockTimeout",
    "MailboxTooLarge",
    "MboxLocking",
    "NotMailbox",
    "NotOwner",
    "append_to_mbox",
    "locked_mbox",
]

_FIRST_PAUSE: Final = 0.0005  # seconds
_WRITE_AT_ONCE: Final = 1 << 20
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


# struct flock: type, whence, start, length, process.
_WHOLE_FILE: Final = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class LockTimeout(OSError):
    """Others hold the mailbox for longer than we wait."""


class NotMailbox(OSError):
    """The name is not that of a file that mail may be appended to."""


class NotOwner(OSError):
    """The mailbox belongs to somebody else."""

    ADVICE: Final = 'specify "strict_mailbox_ownership = no" to ignore mailbox ownership mismatch'


class MailboxTooLarge(OSError):
    """The message does not fit below the size limit of the mailbox."""


@dataclass(frozen=True, slots=True)
class MboxLocking:
    """methods: any of fcntl, flock, dotlock; attempts, delay: deliver_lock_attempts and _delay (s);

    stale: stale_lock_time (s), the age at which a lock file is taken to be forgotten. waited: for
    so many seconds the delivery has waited already.
    """

    methods: tuple[str, ...]
    attempts: int = 20
    delay: float = 1.0
    stale: float = 500.0
    waited: float = 0.0

    def since(self, began: float) -> "MboxLocking":
        """For a delivery that began then (time.monotonic): what it waited for others counts.

        Else each of those that wait for one another would find the lock after the one before.
        """
        waited = time.monotonic() - began
        return self if waited < self.delay else replace(self, waited=waited)


def _dotlock_once(lock: str, stale: float) -> bool:
    try:
        os.mknod(lock, stat.S_IFREG | 0o600)  # as open(2) with O_EXCL, with nothing to close
    except FileExistsError:
        with suppress(FileNotFoundError, PermissionError):  # another's lock stays where it is
            if time.time() - os.stat(lock).st_mtime > stale:
                os.unlink(lock)
        return False
    return True


def _fcntl_once(fd: int, method: str) -> bool:
    """fcntl: a lock of the open file, which others' fcntl locks respect. Those of a process, the
    usual ones, keep no other thread of it out, and end when it closes the file anywhere."""
    try:
        if method == "fcntl":
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _retry(attempt: Callable[[], bool], locking: MboxLocking) -> bool:
    """Try until it works, for as long as `locking` says; False: it did not.

    DIFFERS: from Postfix, which sleeps for the whole delay between attempts: pauses are short at
    first and grow with the time that has passed, for most locks are held by a delivery like this
    one, which takes milliseconds.
    """
    limit = locking.delay * max(locking.attempts - 1, 0)
    waited = locking.waited
    while not attempt():
        if waited >= limit:
            return False
        pause = min(max(_FIRST_PAUSE, waited / 10), locking.delay, limit - waited)
        time.sleep(pause)
        waited += pause
    return True


def _take_dotlock(path: str, locking: MboxLocking, *, optional: bool) -> str | None:
    """The name of the lock file that was made; None where none can be made, but need not be."""
    lock = f"{path}.lock"
    try:
        taken = _retry(partial(_dotlock_once, lock, locking.stale), locking)
    except OSError as err:
        told = _told(err, f"unable to create lock file {lock}", path)
        if not optional:
            raise told from err
        LOG.warning(str(told.strerror))
        return None
    if not taken:
        problem = f"unable to create lock file {lock}: {os.strerror(errno.EEXIST)}"
        raise LockTimeout(errno.EAGAIN, problem, path)
    return lock


def _told(err: OSError, doing: str, path: str) -> OSError:
    """The error of a system call, with what we were about to do in its text."""
    return OSError(err.errno, f"{doing}: {err.strerror}", path)


def _trusted_link(path: str) -> bool:
    """Whether a name is a symbolic link that only root can have put there."""
    link = os.lstat(path)
    folder = os.stat(os.path.dirname(path) or ".")
    safe = folder.st_uid == 0 and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISLNK(link.st_mode) and link.st_uid == 0 and safe


def _open_existing(path: str) -> int:
    try:
        return os.open(path, _FLAGS | os.O_NOFOLLOW)
    except OSError as err:
        if err.errno != errno.ELOOP:
            raise
        if not _trusted_link(path):
            raise NotMailbox(errno.EPERM, "file is a symbolic link", path) from err
        return os.open(path, _FLAGS)


def _open(path: str, new_owner: tuple[int, int] | None) -> int:
    """The file; made where there is none. Raises OSError with a text as Postfix's."""
    try:
        return _open_existing(path)
    except FileNotFoundError:
        pass
    except NotMailbox:
        raise
    except OSError as err:
        raise _told(err, "cannot open file", path) from err
    try:
        fd = os.open(path, _FLAGS | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as err:  # somebody was faster: next time
        raise _told(BlockingIOError(errno.EAGAIN, err.strerror), "cannot open file", path) from err
    except OSError as err:
        raise _told(err, "cannot create file exclusively", path) from err
    if new_owner is not None:
        os.fchown(fd, *new_owner)
    return fd


def _check(status: os.stat_result, path: str, owner: int | None) -> None:
    """Refuse what no mail is appended to."""
    if not stat.S_ISREG(status.st_mode):
        raise NotMailbox(errno.EPERM, f"destination {path} is not a regular file", path)
    if status.st_nlink > 1:
        raise NotMailbox(errno.EPERM, f"file has {status.st_nlink} hard links", path)
    if owner is not None and status.st_uid != owner:
        raise NotOwner(errno.EPERM, f"destination {path} is not owned by recipient", path)


def _write(fd: int, path: str, pieces: Iterable[bytes], size: int, limit: int) -> None:
    for piece in pieces:
        size += len(piece)
        if limit and size > limit:
            problem = f"error writing message: {os.strerror(errno.EFBIG)}"
            raise MailboxTooLarge(errno.EFBIG, problem, path)
        rest: bytes | memoryview = piece
        try:
            while rest:
                written = os.write(fd, rest[:_WRITE_AT_ONCE])
                rest = memoryview(rest)[written:]
        except OSError as err:
            raise _told(err, "error writing message", path) from err


def _append(fd: int, path: str, pieces: Iterable[bytes], start: int, limit: int) -> Steps[None]:
    """start: the size of the file, which nobody else changes now."""
    try:
        _write(fd, path, pieces, start, limit)
        try:
            yield fd
        except OSError as err:
            raise _told(err, "error writing message", path) from err
    except BaseException:
        os.ftruncate(fd, start)
        raise


def append_to_mbox(
    path: str,
    pieces: Iterable[bytes],
    locking: MboxLocking,
    *,
    size_limit: int = 0,
    owner: int | None = None,
    new_owner: tuple[int, int] | None = None,
    special: bool = False,
) -> Steps[None]:
    """Append `pieces` (From line, message, empty line) to the mailbox, durable at the end.

    Runs with the rights of the mailbox's owner; blocks while it waits for locks. size_limit: octets
    of the whole mailbox, 0 for none. owner: user id that the file must have
    (strict_mailbox_ownership). new_owner: user and group id that a new file gets. special: devices
    and FIFOs will do, too, which are neither locked nor limited, and of a file only what locks can
    be had; one that does not take the message now is an error, as nobody knows when it will.

    Raises OSError (LockTimeout, NotMailbox, NotOwner, MailboxTooLarge), whose strerror is what a
    report says; the mailbox is then as it was.
    """
    if special and not _regular(path):
        _append_unlocked(path, pieces)
        return
    with _held(path, locking, owner=owner, new_owner=new_owner, optional=special) as (fd, size):
        yield from _append(fd, path, pieces, size, size_limit)


@contextmanager
def locked_mbox(path: str, locking: MboxLocking) -> Iterator[None]:
    """Hold the locks that a delivery to the mailbox takes; the file is made where there is none.

    Raises OSError (LockTimeout, NotMailbox), as `append_to_mbox`.
    """
    with _held(path, locking, owner=None, new_owner=None, optional=False):
        yield


@contextmanager
def _held(
    path: str,
    locking: MboxLocking,
    *,
    owner: int | None,
    new_owner: tuple[int, int] | None,
    optional: bool,
) -> Iterator[tuple[int, int]]:
    """The mailbox, open for appending and locked, and its size.

    optional: where no lock file can be made there need be none.
    """
    lock = None
    if "dotlock" in locking.methods:
        lock = _take_dotlock(path, locking, optional=optional)
    try:
        fd = _open(path, new_owner)
        try:
            yield fd, _ready(fd, path, locking, owner)
        finally:
            os.close(fd)
    finally:
        if lock is not None:
            os.unlink(lock)


def _ready(fd: int, path: str, locking: MboxLocking, owner: int | None) -> int:
    """Check an open file, and take the locks that end with its descriptor. Returns its size."""
    methods = [method for method in locking.methods if method != "dotlock"]
    while methods and _fcntl_once(fd, methods[0]):
        del methods[0]
    status = os.fstat(fd)
    _check(status, path, owner)
    if not methods:  # the usual case, with one look at the file
        return status.st_size
    for method in methods:
        if not _retry(partial(_fcntl_once, fd, method), locking):
            problem = f"unable to lock for exclusive access: {os.strerror(errno.EAGAIN)}"
            raise LockTimeout(errno.EAGAIN, problem, path)
    return os.fstat(fd).st_size


def _regular(path: str) -> bool:
    """Whether there is an ordinary file of the name, or none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def _append_unlocked(path: str, pieces: Iterable[bytes]) -> None:
    """The descriptor does not block: a reader that does not read, or a terminal that was stopped,
    would hold us for ever."""
    fd = _open(path, None)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):  # a moment ago it was none: next time, with locks
            raise _told(BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "open file", path)
        _write(fd, path, pieces, 0, 0)
    finally:
        os.close(fd)
