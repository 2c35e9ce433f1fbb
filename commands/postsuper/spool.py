"""The queue of an original Postfix that is to be imported: its files, which are only read."""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from libmail.files.safe_open import PlantedName, safe_open
from libmail.ipc.messages import QueueId
from libmail.queue.directory import QueueDirectory
from libmail.service.master_lock import PID_FILE

__all__ = ["IMPORTED_QUEUES", "REASON_LOGS", "Original", "Spool", "SpoolError"]

IMPORTED_QUEUES: Final = ("maildrop", "hold", "incoming", "active", "deferred")
REASON_LOGS: Final = ("bounce", "defer", "trace")
_MAX_DEPTH: Final = 5  # of hash_queue_depth
_MAX_LOG: Final = 1 << 26
_DIGITS: Final = "0123456789ABCDEF"
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK


class SpoolError(Exception):
    """The directory cannot be imported from. The text is fit to follow "fatal: "."""


@dataclass(frozen=True, slots=True)
class Original:
    """A file of the original's queue; path: of it."""

    queue_name: str
    queue_id: QueueId
    path: str


class Spool:
    """The directory, which is not the queue that is imported into.

    As long as this is open, the Postfix that it belongs to cannot be started. owner: user id of its
    mail_owner.
    """

    def __init__(self, top: str) -> None:
        """Raises SpoolError, OSError. top: what its `queue_directory` was; absolute."""
        self.top = top
        found = [name for name in reversed(IMPORTED_QUEUES) if os.path.isdir(f"{top}/{name}")]
        if not found:
            raise SpoolError(f"{top}: no Postfix queue directory")
        self.owner = os.stat(f"{top}/{found[0]}").st_uid
        self._logs = {kind: self._log_directories(kind) for kind in REASON_LOGS}
        self._lock = self._keep_stopped()

    def _keep_stopped(self) -> int | None:
        """Take the lock of the original's master; None if it has none."""
        path = f"{self.top}/{PID_FILE}"
        try:
            fd = safe_open(path, _FLAGS, follow=False)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise SpoolError(f"{self.top}: the Postfix of this queue is running") from None
        return fd

    def _log_directories(self, kind: str) -> list[QueueDirectory]:
        """How the logs of a kind may be hashed."""
        found = []
        folders = [f"{self.top}/{kind}"]
        for depth in range(_MAX_DEPTH + 1):
            folders = [folder for folder in folders if os.path.isdir(folder)]
            if not folders:
                break
            found.append(QueueDirectory(frozenset({kind} if depth else ()), depth))
            folders = [f"{folder}/{digit}" for folder in folders for digit in _DIGITS]
        return found

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def messages(self) -> Iterator[Original]:
        """Every file that is named like a message, hashed or not."""
        directory = QueueDirectory(frozenset())
        for name in IMPORTED_QUEUES:
            for entry in directory.scan(f"{self.top}/{name}"):
                yield Original(name, QueueId(entry.name), entry.path)

    def log(self, kind: str, queue_id: QueueId) -> tuple[bytes, float]:
        """What bounce, defer or trace have written about a message, and when last (of the epoch).

        (b"", 0) if there is nothing.
        """
        for directory in self._logs[kind]:
            try:
                fd = open_original(f"{self.top}/{directory.path(kind, queue_id)}")
            except FileNotFoundError:
                continue
            with open(fd, "rb") as file:
                return file.read(_MAX_LOG), os.fstat(fd).st_mtime
        return b"", 0.0


def open_original(path: str) -> int:
    """A descriptor for reading that leaves no trace in the file. Raises OSError."""
    try:
        return safe_open(path, _FLAGS | os.O_NOATIME, follow=False)
    except PlantedName:
        raise
    except PermissionError:  # perhaps only because the file is another user's
        return safe_open(path, _FLAGS, follow=False)
