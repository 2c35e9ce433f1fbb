"""Whether what this process reads from files is still what is in them.

A table of text is read as a whole when it opens, and an indexed file may lose its name to another
one that cannot be opened from behind the jail.  Either way only a new process sees what is there
now.  So each such file is registered here, and a daemon looks from time to time
(libmail.service.skeleton): it then makes room for its successor.  Files stay open for that, as
their names may be out of reach.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO
from weakref import WeakSet

from libmail.files.safe_open import safe_open

__all__ = ["Perishable", "outdated", "read_source", "register"]


class Perishable(Protocol):
    """Something that was read, or is held open."""

    @property
    def path(self) -> str:
        """What the log calls it."""

    @property
    def replaced(self) -> bool:
        """True: a new process would read something else."""


# Tables hold files that they read again and again; nobody else holds what was read once.
_HELD: Final[WeakSet[Perishable]] = WeakSet()
_READ_ONCE: Final[dict[tuple[int, int], Perishable]] = {}


class _Text:
    """A text file that was read as a whole."""

    __slots__ = ("_fd", "_time", "path")

    def __init__(self, path: str, fd: int, time: int) -> None:
        """fd: stays open. time: of the last change of the content, in ns."""
        self.path = path
        self._fd = fd
        self._time = time

    @property
    def replaced(self) -> bool:
        status = os.fstat(self._fd)
        return status.st_mtime_ns != self._time or status.st_nlink == 0


def register(one: Perishable) -> None:
    """Look at this, too, as long as it exists."""
    _HELD.add(one)


@contextmanager
def read_source(path: str) -> Iterator[TextIO]:
    """Open a text file for a table that keeps its content. Raises OSError."""
    with open(
        path, encoding="utf-8", errors="surrogateescape", newline="\n", opener=safe_open
    ) as file:
        status = os.fstat(file.fileno())
        key = status.st_dev, status.st_ino
        if stat.S_ISREG(status.st_mode) and key not in _READ_ONCE:
            _READ_ONCE[key] = _Text(path, os.dup(file.fileno()), status.st_mtime_ns)
        yield file


def outdated() -> str:
    """The path of a file that a new process would read anew; "" if there is none."""
    for one in (*_READ_ONCE.values(), *_HELD):
        if one.replaced:
            return one.path
    return ""
