"""Files that survive a crash: a new name is there for good when its directory is on disk."""

import os

__all__ = ["sync_directory"]


def sync_directory(path: str) -> None:
    """Have the names in a directory on disk. Raises OSError.

    One that may be written but not listed, such as maildrop, is open to its owner.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
