"""postsuper --import of the queue directory itself, where an original Postfix has made way.

Its directories of queues and logs are moved into `original` in the queue directory, so that it does
not matter which file system that is, and what else is there stays: a jail's files, its log socket.
Then they are imported as from anywhere.  `maildrop` stays: pickup(8) reads both kinds of files.
When all has been imported, `original` goes, and with it the record of the import.  A run that was
interrupted is finished by the next.
"""

import errno
import os
import shutil
from typing import Final

from commands.postsuper.importing import ImportParams, Tally, import_spool
from commands.postsuper.spool import REASON_LOGS, Spool
from commands.postsuper.staging import DIRECTORY
from libmail.privileges import Identity
from libmail.queue.directory import QueueDirectory
from libmail.queue.foreign_queue import foreign_mail
from libmail.service.master_lock import PID_FILE, open_lock

__all__ = ["import_in_place"]

_ORIGINAL: Final = "original"
_MOVED: Final = ("hold", "incoming", "active", "deferred", *REASON_LOGS)


def import_in_place(
    directory: QueueDirectory, params: ImportParams, owner: Identity, *, privileged: bool
) -> Tally:
    """Import what an original has left here; nothing where it has not.

    The working directory is that of the queue.  Raises LockHeld, SpoolError, OSError.
    """
    if not os.path.isdir(_ORIGINAL) and not foreign_mail("."):
        return Tally()
    lock = open_lock(PID_FILE)
    try:
        _move_aside(owner, privileged=privileged)
        spool = Spool(os.path.abspath(_ORIGINAL))
        try:
            tally = import_spool(spool, directory, params, owner, privileged=privileged)
        finally:
            spool.close()
        if not tally.failed:
            shutil.rmtree(_ORIGINAL)
            shutil.rmtree(DIRECTORY)
    finally:
        os.close(lock)
    return tally


def _move_aside(owner: Identity, *, privileged: bool) -> None:
    """The queue directory belongs to root, so nobody else puts names into it meanwhile."""
    if not os.path.isdir(_ORIGINAL):
        os.mkdir(_ORIGINAL, 0o700)
    for name in _MOVED:
        moved = f"{_ORIGINAL}/{name}"
        if not os.path.isdir(moved):  # or this is the second run, and these are ours
            if os.path.isdir(name):
                _move(name, moved)
            else:
                os.mkdir(moved, 0o700)
        if not os.path.isdir(name):
            os.mkdir(name, 0o700)
            if privileged:
                os.chown(name, owner.uid, -1, follow_symlinks=False)


def _move(name: str, moved: str) -> None:
    """Rename a directory, or where it belongs to a lower layer of a container, what is in it."""
    try:
        os.rename(name, moved)
        return
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
    part = f"{moved}.part"
    for folder, _, files in os.walk(name):
        target = part + folder[len(name) :]
        status = os.stat(folder)
        os.makedirs(target, 0o700, exist_ok=True)
        os.chown(target, status.st_uid, status.st_gid)
        for file in files:
            os.rename(f"{folder}/{file}", f"{target}/{file}")
    shutil.rmtree(name)
    os.rename(part, moved)
