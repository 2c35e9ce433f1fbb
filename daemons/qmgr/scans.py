"""Walks over the incoming and the deferred queue, a few files at a time."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from libmail.ipc.messages import QueueId
from libmail.queue.directory import QueueDirectory

_COMPLETE = stat.S_IXUSR


class Found(NamedTuple):
    """A complete file that may enter the active queue. expire: see `FORCED_EXPIRY`.

    announced: found because cleanup(8) told of it.
    """

    queue_name: str
    queue_id: QueueId
    expire: bool
    flush: bool
    announced: bool = False


class QueueScan:
    """Scans of one queue: at most one at a time; what is asked for meanwhile comes after it.

    timed: a file whose time stamp is in the future is left alone, unless the scan ignores times.
    """

    def __init__(
        self,
        directory: QueueDirectory,
        queue_name: str,
        *,
        timed: bool,
        expire_mode: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.queue_name = queue_name
        self._directory = directory
        self._timed = timed
        self._expire_mode = expire_mode
        self._clock = clock
        self._files: Iterator[os.DirEntry[str]] | None = None
        self._wanted = False
        self.pending = False  # there is something left to look at
        self._ignore_times = self._flush = False
        self._next_ignore_times = self._next_flush = False

    def request(self, *, ignore_times: bool = False, flush: bool = False) -> None:
        """Scan, after the scan that is under way."""
        self._wanted = self.pending = True
        self._next_ignore_times |= ignore_times
        self._next_flush |= flush

    def next_found(self, budget: int) -> tuple[Found | None, int]:
        """The next file to take, and what is left of the budget (files to look at)."""
        if self._files is None:
            if not self._wanted:
                return None, budget
            self._begin()
        files = self._files
        while files is not None and budget > 0:
            budget -= 1
            entry = next(files, None)
            if entry is None:
                self._files = None
                self.pending = self._wanted
                return None, budget
            found = self._examine(entry)
            if found is not None:
                return found, budget
        return None, budget

    def _begin(self) -> None:
        self._wanted = False
        self._ignore_times, self._next_ignore_times = self._next_ignore_times, False
        self._flush, self._next_flush = self._next_flush, False
        self._files = self._directory.scan(self.queue_name)

    def _examine(self, entry: os.DirEntry[str]) -> Found | None:
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:
            return None  # gone meanwhile
        if not stat.S_ISREG(info.st_mode) or not info.st_mode & _COMPLETE:
            return None
        if self._timed and not self._ignore_times and info.st_mtime > self._clock():
            return None
        expire = bool(info.st_mode & self._expire_mode)
        return Found(self.queue_name, QueueId(entry.name), expire, self._flush)
