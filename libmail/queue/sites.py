"""The records of flush(8): which messages were deferred for a site.

One file for a site in the directory `flush`, hashed if `hash_queue_names` says so: a queue id a
line, appended without fsync, as a record that is lost only means that its message waits for its
next regular try. The file is emptied when it is read for a delivery. So it may name messages that
have gone meanwhile; `tidy` strikes these out. Its time of access is when it was last emptied or
made, its time of modification when it last changed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from libmail.ipc.messages import QueueId
from libmail.queue.directory import QueueDirectory
from libmail.queue.ids import is_queue_id

__all__ = ["SiteRecords"]

_FOLDER: Final = "flush"
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-.")
_WAITING: Final = ("deferred", "active", "incoming", "hold")  # where a message may be tried again
_DEEPEST: Final = 5
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOATIME


class SiteRecords:
    """Raises OSError as it comes. Several processes may work on the same files."""

    def __init__(self, queue: QueueDirectory) -> None:
        self._queue = queue

    def path(self, site: str) -> str:
        """Where the record of a site is, relative to the queue directory."""
        name = "".join(
            chr(octet) if octet in _PLAIN else f"%{octet:02x}"
            for octet in site.lower().encode("utf-8", "surrogateescape")
        )
        if _FOLDER not in self._queue.hashed:
            return f"{_FOLDER}/{name}"
        levels = name.replace(".", "_")[: self._queue.depth]
        return "/".join((_FOLDER, *levels, name))

    def add(self, site: str, queue_id: QueueId) -> None:
        """A message was deferred for this site; said again right behind itself, it counts once."""
        line = f"{queue_id}\n".encode("ascii")
        with self._locked(self.path(site), create=True) as fd:
            size = os.fstat(fd).st_size
            last = os.pread(fd, len(line), max(0, size - len(line)))
            if last != line:
                torn = last and not last.endswith(b"\n")
                os.pwrite(fd, b"\n" + line if torn else line, size)

    def take(self, site: str) -> list[QueueId]:
        """The messages of a site, each once, oldest first; they are forgotten."""
        try:
            with self._locked(self.path(site)) as fd:
                found = _read(fd)
                os.ftruncate(fd, 0)
                os.utime(fd)
        except FileNotFoundError:
            return []
        return found

    def paths(self) -> Iterator[str]:
        """Where there are records."""
        yield from _files(_FOLDER, 0)

    def tidy(self, path: str, now: float, *, refresh: float, purge: float) -> None:
        """Strike out what has gone, or remove the file.

        now: of the epoch. refresh: seconds after which a file that was not emptied is looked
        through; purge: after which an empty one is removed.
        """
        with suppress(FileNotFoundError), self._locked(path) as fd:
            status = os.fstat(fd)
            if not status.st_size:
                if status.st_mtime + purge < now:
                    os.unlink(path)
            elif status.st_atime + refresh < now:
                left = [name for name in _read(fd) if self._queue.find(name, _WAITING)]
                os.ftruncate(fd, 0)
                os.pwrite(fd, "".join(f"{name}\n" for name in left).encode("ascii"), 0)
                os.utime(fd, (now, now))

    @contextmanager
    def _locked(self, path: str, *, create: bool = False) -> Iterator[int]:
        """The file, open and locked. It is never held for longer than it takes to write it."""
        while True:
            fd = _open(path, create=create)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:  # else it was removed before it was locked
                    yield fd
                    return
            finally:
                os.close(fd)


def _open(path: str, *, create: bool) -> int:
    flags = _FLAGS | (os.O_CREAT if create else 0)
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        if not create:
            raise
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _read(fd: int) -> list[QueueId]:
    """The queue ids in a file; what is none is left out, as a crash may have torn a line.

    What follows an id on its line is for later versions.
    """
    with open(fd, "rb", closefd=False) as file:
        lines = file.read().decode("ascii", "replace").split("\n")
    names = [line.partition(" ")[0] for line in lines]
    return [QueueId(name) for name in dict.fromkeys(names) if is_queue_id(name)]


def _files(folder: str, depth: int) -> Iterator[str]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                yield entry.path
            elif len(entry.name) == 1 and depth < _DEEPEST:
                yield from _files(entry.path, depth + 1)
