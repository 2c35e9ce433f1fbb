"""Whether a queue holds mail of an original Postfix, which only `postsuper --import` can read.

qmgr(8) would take each such message for a damaged one.  So nobody starts on such a queue.
"""

import os
from typing import Final

from libmail.log import Fatal
from libmail.queue.directory import QueueDirectory

__all__ = ["foreign_mail", "refuse_foreign_mail"]

# Of what sendmail leaves in maildrop, pickup(8) knows both formats.
_QUEUES: Final = ("incoming", "active", "deferred", "hold")
_MOST: Final = 10_000  # files of a queue that are looked at: all of them have one format
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SIZE: Final = b"C"  # the record that the original's files begin with, of numbers alone


def foreign_mail(queue_directory: str) -> str:
    """The path, below the queue directory, of a message of the original; "" if there is none."""
    directory = QueueDirectory(frozenset())
    for name in _QUEUES:
        for number, entry in enumerate(directory.scan(f"{queue_directory}/{name}")):
            if number >= _MOST:
                break
            if _is_foreign(entry.path):
                return os.path.relpath(entry.path, queue_directory)
    return ""


def refuse_foreign_mail(queue_directory: str) -> None:
    """Raises Fatal where there is mail of the original, with what to do about it."""
    found = foreign_mail(queue_directory)
    if found:
        raise Fatal(
            f"{queue_directory}: {found} and perhaps more is mail of an original Postfix: "
            f'"postsuper --import {queue_directory}" takes it over'
        )


def _is_foreign(path: str) -> bool:
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return False  # it has gone, or is no file
    try:
        head = os.read(fd, 128)
    except OSError:
        return False
    finally:
        os.close(fd)
    return head[:1] == _SIZE and len(head) > 2 and _numbers(head[2 : 2 + head[1]])


def _numbers(data: bytes) -> bool:
    return bool(data) and all(word.isdigit() for word in data.split())
