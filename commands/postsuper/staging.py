"""Where imported messages are until they are in the queue, and the record of all that ever were.

The directory `import` of the queue, which no daemon looks into. It holds files like those of the
queue, named by their new ids, and the file `record`:

    ID ARRIVAL SENDER NEW-ID QUEUE     a message: what it was, its new id, the queue that it is for
    -                                  what is above this line is in the queue

ARRIVAL in microseconds of the epoch, SENDER as CRC-32: with the old id they tell a message from all
others, even in a copy of the original's queue. The order of the steps, for some messages at a time:
write the file, its logs, fsync; add the line, fsync; rename into the queue. So an interrupted
import leaves files with a line, which `recover` moves into the queue, and files without, which
it removes, for their originals will be imported again.
"""

import fcntl
import os
import zlib
from contextlib import suppress
from typing import Final, NamedTuple

from commands.postsuper.spool import REASON_LOGS
from libmail.files.durable import sync_directory
from libmail.ipc.messages import QueueId
from libmail.queue.directory import QUEUES, QueueDirectory
from libmail.queue.file import QueueFileWriter
from libmail.queue.ids import is_queue_id

__all__ = ["DIRECTORY", "ImportUnderWay", "Key", "Staged", "Staging"]

DIRECTORY: Final = "import"
_RECORD: Final = f"{DIRECTORY}/record"
_ALL_DONE: Final = "-"


class ImportUnderWay(Exception):
    """Another process imports into the same queue."""


class Key(NamedTuple):
    """What tells an original from all others."""

    queue_id: QueueId
    arrival: int
    sender: int

    @classmethod
    def of(cls, queue_id: QueueId, arrival: float, sender: str) -> "Key":
        """arrival: of the epoch, in seconds."""
        crc = zlib.crc32(sender.encode("utf-8", "surrogateescape"))
        return cls(queue_id, round(arrival * 1_000_000), crc)


class Staged(NamedTuple):
    """A file in staging, open. queue_name: where it is to go."""

    key: Key
    fd: int
    queue_id: QueueId
    queue_name: str


class Staging:
    """Works in the queue directory, as its owner. Methods raise OSError as it comes."""

    def __init__(self, directory: QueueDirectory) -> None:
        """Raises ImportUnderWay. The directory `import` exists."""
        self._directory = directory
        self._staged: list[Staged] = []
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._record = os.open(_RECORD, flags, 0o600)
        try:
            fcntl.flock(self._record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._record)
            raise ImportUnderWay from None
        self._known: set[Key] = set()
        self._pending: dict[QueueId, str] = {}  # new ids that may not be in the queue yet
        self._read_record()

    def _read_record(self) -> None:
        with open(self._record, encoding="ascii", errors="replace", closefd=False) as file:
            text = file.read()
        complete, newline, torn = text.rpartition("\n")
        for line in complete.split("\n"):
            words = line.split()
            if line == _ALL_DONE:
                self._pending.clear()
            elif len(words) >= 5 and words[4] in QUEUES:  # later versions may have more of them
                try:
                    key = Key(QueueId(words[0]), int(words[1]), int(words[2], 16))
                except ValueError:
                    continue
                self._known.add(key)
                self._pending[QueueId(words[3])] = words[4]
        if torn:
            os.ftruncate(self._record, len(complete) + len(newline))

    def recover(self) -> tuple[int, int]:
        """Finish or undo what an interrupted import has left: (finished, undone)."""
        finished = undone = 0
        with os.scandir(DIRECTORY) as entries:
            names = [entry.name for entry in entries if entry.path != _RECORD]
        moved: list[tuple[QueueId, str]] = []
        for name in names:
            queue_name = self._pending.get(QueueId(name))
            if queue_name is not None:
                moved.append((QueueId(name), queue_name))
                finished += 1
                continue
            if is_queue_id(name):
                self._forget_logs(QueueId(name))
            os.unlink(f"{DIRECTORY}/{name}")
            undone += 1
        self._move(moved)
        return finished, undone

    def _forget_logs(self, queue_id: QueueId) -> None:
        for kind in REASON_LOGS:
            self._directory.remove(kind, queue_id)

    def close(self) -> None:
        """Let others import; what was not committed is forgotten."""
        for one in self._staged:
            os.close(one.fd)
        self._staged.clear()
        os.close(self._record)

    def knows(self, key: Key) -> bool:
        """Whether the message has been imported, or is about to be."""
        return key in self._known

    def writer(self, arrival: float, wanted: QueueId, *, long_ids: bool) -> QueueFileWriter:
        """A new file. arrival: of the epoch, for its id; wanted: the old id.

        It keeps a long id, which is unique for ever. A short one is unique while its file has the
        inode that it is made of. Here the file has another, so a new message could get the same
        id, and replace it.
        """
        writer = QueueFileWriter(
            QueueDirectory(frozenset()), DIRECTORY, long_ids=long_ids, now=arrival
        )
        if "z" in wanted and self._directory.find(wanted, (*QUEUES, DIRECTORY)) is None:
            os.rename(writer.path, f"{DIRECTORY}/{wanted}")
            writer.queue_id = wanted
        return writer

    def add(self, staged: Staged) -> None:
        """A file that is complete, with its logs."""
        self._staged.append(staged)
        self._known.add(staged.key)

    def __len__(self) -> int:
        """How many files wait for `commit`."""
        return len(self._staged)

    def commit(self) -> None:
        """Put what was added into the queue, durably."""
        staged, self._staged = self._staged, []
        if not staged:
            return
        for one in staged:  # begin to write all, and the file system commits many at a time
            os.posix_fadvise(one.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for one in staged:
            os.fsync(one.fd)
            os.close(one.fd)
        sync_directory(DIRECTORY)
        self._write("".join(map(_line, staged)))
        os.fsync(self._record)
        self._move([(one.queue_id, one.queue_name) for one in staged])

    def _move(self, files: list[tuple[QueueId, str]]) -> None:
        folders = {self._directory.folder(queue_name, name) for name, queue_name in files}
        for folder in folders:
            os.makedirs(folder, 0o700, exist_ok=True)
        for name, queue_name in files:
            os.rename(f"{DIRECTORY}/{name}", self._directory.path(queue_name, name))
        for folder in folders:
            sync_directory(folder)
        if files:
            self._write(f"{_ALL_DONE}\n")

    def _write(self, text: str) -> None:
        data = text.encode("ascii")
        while data:
            data = data[os.write(self._record, data) :]

    def discard(self, writer: QueueFileWriter) -> None:
        """Remove a file that was not added."""
        self._forget_logs(writer.queue_id)
        with suppress(FileNotFoundError):
            writer.discard()


def _line(staged: Staged) -> str:
    key = staged.key
    return f"{key.queue_id} {key.arrival} {key.sender:08x} {staged.queue_id} {staged.queue_name}\n"
