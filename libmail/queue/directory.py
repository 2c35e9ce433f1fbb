"""The queue directories: names, hashing and moves; see docs/queue.md for what each holds.

Paths are relative to the queue directory, which is the working directory of every daemon (and its
root directory, when it is chrooted).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from libmail.ipc.messages import QueueId
from libmail.log import LOG
from libmail.queue.ids import is_queue_id, microseconds_of

__all__ = ["MESSAGE_QUEUES", "QUEUES", "QueueDirectory"]

MESSAGE_QUEUES: Final = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
QUEUES: Final = (*MESSAGE_QUEUES, "bounce", "defer", "trace", "flush", "saved")


@dataclass(frozen=True, slots=True)
class QueueDirectory:
    """hashed: `hash_queue_names`; depth: `hash_queue_depth`, 1 to 5 levels of one character."""

    hashed: frozenset[str] = frozenset({"deferred", "defer"})
    depth: int = 1

    def folder(self, queue_name: str, queue_id: QueueId) -> str:
        """The directory that holds the file."""
        if queue_name not in self.hashed:
            return queue_name
        return "/".join((queue_name, *microseconds_of(queue_id)[: self.depth]))

    def path(self, queue_name: str, queue_id: QueueId) -> str:
        """Where the file of this id is, or would be."""
        if queue_name not in self.hashed:
            return f"{queue_name}/{queue_id}"
        return f"{self.folder(queue_name, queue_id)}/{queue_id}"

    def rename(self, queue_id: QueueId, old: str, new: str) -> str:
        """Move a file from queue `old` to `new`; returns the new path. Raises OSError."""
        target = self.path(new, queue_id)
        source = self.path(old, queue_id)
        try:
            os.rename(source, target)
        except FileNotFoundError:
            os.makedirs(self.folder(new, queue_id), 0o700, exist_ok=True)
            os.rename(source, target)
        return target

    def find(self, queue_id: QueueId, queues: tuple[str, ...] = MESSAGE_QUEUES) -> str | None:
        """The name of the first of these queues that has the file; None if none has."""
        for queue_name in queues:
            if os.path.lexists(self.path(queue_name, queue_id)):
                return queue_name
        return None

    def remove(self, queue_name: str, queue_id: QueueId) -> bool:
        """Unlink the file. Returns whether it was there. Raises OSError otherwise."""
        try:
            os.unlink(self.path(queue_name, queue_id))
        except FileNotFoundError:
            return False
        return True

    def scan(self, queue_name: str) -> Iterator[os.DirEntry[str]]:
        """Every file of a queue whose name is a queue id, in no order, at whatever depth.

        Files that vanish or appear meanwhile may or may not be seen. Each directory is read
        while its entries are taken, so that a queue of any size needs little memory.
        """
        yield from _scan(queue_name, 0)


def _scan(folder: str, depth: int) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_queue_id(entry.name):
                    yield entry
                elif len(entry.name) == 1 and depth < 5 and entry.is_dir(follow_symlinks=False):
                    yield from _scan(entry.path, depth + 1)
    except FileNotFoundError:
        pass
    except OSError as err:  # what can be read is not to wait for what cannot
        LOG.warning(f"scan {folder}: {err.strerror}")
