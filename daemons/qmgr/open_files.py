"""Open files of the active queue: an agent gets that of its message as a descriptor.

So an agent needs no name in the queue. A file was read when its message entered the active queue,
and mostly goes to an agent right after that: its descriptor is kept for that, where there is room.
It is used for no longer than a moment, as postsuper(1) may take the file away meanwhile.

Each is locked (LOCK_SH), and copies of a descriptor share the lock: as long as an agent has one, a
queue manager that was restarted, and knows of no delivery, can tell that there is one.
"""

import fcntl
import os
from typing import Final

from libmail.ipc.messages import QueueId
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import open_queue_file

__all__ = ["OpenFiles"]

_MOST: Final = 256
_MOMENT: Final = 1.0  # seconds


class OpenFiles:
    """Owns what it keeps. Times are of the epoch."""

    def __init__(self, directory: QueueDirectory) -> None:
        self._directory = directory
        self._kept: dict[QueueId, tuple[int, float]] = {}

    def keep(self, queue_id: QueueId, fd: int, now: float) -> None:
        """Keep a file, which is locked, for the request that comes next."""
        kept = self._kept
        if len(kept) >= _MOST and not self._make_room(now):
            os.close(fd)
        else:
            kept[queue_id] = fd, now

    def _make_room(self, now: float) -> bool:
        """Whether the oldest file is of no use any more. It is the next to be asked for, else."""
        queue_id, (_, since) = next(iter(self._kept.items()))
        if 0 <= now - since < _MOMENT:
            return False
        self.drop(queue_id)
        return True

    def take(self, queue_id: QueueId, now: float) -> int:
        """The file of a message, which is the caller's. Raises OSError."""
        kept = self._kept.pop(queue_id, None)
        if kept is not None:
            fd, since = kept
            if 0 <= now - since < _MOMENT:
                return fd
            os.close(fd)
        fd = open_queue_file(self._directory.path("active", queue_id), writable=True)
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def drop(self, queue_id: QueueId) -> None:
        """Nobody will ask for this file any more."""
        kept = self._kept.pop(queue_id, None)
        if kept is not None:
            os.close(kept[0])

    def close(self) -> None:
        """No more requests are made."""
        for queue_id in list(self._kept):
            self.drop(queue_id)
