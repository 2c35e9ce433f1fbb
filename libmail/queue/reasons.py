"""The logs of bounce(8), defer(8), trace(8): what happened to the recipients of a message.

One file for a message in each of the directories of these names, text, one record for a recipient:
an empty line, lines of `name=value`, the line `end`. A record is appended by one write; a torn one
(power loss, full disk) has no end and is left out by the reader, whatever was appended after it. A
recipient may have several: one for each of the destinations that an alias names. Records that tell
the same, which a crash between record and done mark makes, count once.
"""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from libmail.ipc.messages import QueueId, Target
from libmail.log import printable
from libmail.queue.directory import QueueDirectory

__all__ = ["ReasonLog"]

_MAX_SIZE: Final = 1 << 26
_TEXT_FIELDS: Final = (
    "address", "orig_rcpt", "dsn_orcpt", "action", "status", "reason", "mta", "diag_type",
    "diag_text", "relay",
)  # fmt: skip
_TRIMMED: Final = frozenset({"reason", "diag_text"})  # of the white space that output ends with
_NEEDED: Final = frozenset({"address", "action", "status"})
_NUMBER_FIELDS: Final = ("notify", "offset")


def _encode(target: Target) -> bytes:
    lines = [f"{name}={printable(getattr(target, name))}\n" for name in _TEXT_FIELDS]
    lines += [f"{name}={getattr(target, name)}\n" for name in _NUMBER_FIELDS]
    lines.append(f"time={target.time:.6f}\nend\n")
    return "".join(["\n\n", *lines]).encode("utf-8", "surrogateescape")


def _decode(record: str) -> Target | None:
    """The target of a record; None if the record is not whole."""
    values = dict(line.partition("=")[::2] for line in record.split("\n"))
    if "end" not in values or not values.keys() >= _NEEDED:
        return None
    try:
        return Target(
            notify=int(values.get("notify", "0")),
            offset=int(values.get("offset", "0")),
            time=float(values.get("time", "0")),
            **{
                name: text.rstrip() if name in _TRIMMED else text
                for name in _TEXT_FIELDS
                for text in (values.get(name, ""),)
            },
        )
    except ValueError:
        return None


class ReasonLog:
    """The log files of one of the services. Raises OSError as it comes."""

    def __init__(self, directory: QueueDirectory, queue_name: str) -> None:
        """queue_name: bounce, defer or trace."""
        self._directory = directory
        self._queue_name = queue_name

    def append(self, queue_id: QueueId, targets: Iterable[Target]) -> int:
        """Add records. Returns the descriptor of the log, which is the caller's: to close it, and
        before that, if the records have to outlive a crash, to have it on disk."""
        data = b"".join(map(_encode, targets))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        path = self._directory.path(self._queue_name, queue_id)
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(self._directory.folder(self._queue_name, queue_id), 0o700, exist_ok=True)
            fd = os.open(path, flags, 0o600)
        try:
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read(self, queue_id: QueueId) -> list[Target]:
        """The records, in order, without repetitions; [] without a log."""
        try:
            with open(self._directory.path(self._queue_name, queue_id), "rb") as file:
                data = file.read(_MAX_SIZE)
        except FileNotFoundError:
            return []
        found: dict[Target, Target] = {}
        for record in data.decode("utf-8", "surrogateescape").split("\n\n"):
            target = _decode(record)
            if target is not None:
                found.setdefault(target._replace(time=0.0), target)
        return list(found.values())

    def clear(self, queue_id: QueueId) -> None:
        """Empty the log, where its directory does not let it be removed."""
        os.truncate(self._directory.path(self._queue_name, queue_id), 0)

    def remove(self, queue_id: QueueId) -> None:
        """Forget what is known about the message."""
        with suppress(FileNotFoundError):
            os.unlink(self._directory.path(self._queue_name, queue_id))
