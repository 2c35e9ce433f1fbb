"""The maildrop directory: mail that sendmail(1) left while the mail system was down.

Anyone may add a file, so nothing that a file says is believed before it has been checked: it must
be a regular file with one link, complete, of bounded size; its owner is its sender. Users take
turns, so that one who leaves many files does not hold up the others.
"""

import asyncio
import errno
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Final

import pyinotify

from daemons.pickup.params import Prepared
from daemons.pickup.submit import EX_OK, EX_TEMPFAIL, MAX_RECIPIENTS, Origin, Submitter
from libmail.ipc.codec import WireError
from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.log import LOG
from libmail.queue.file import QueueFile, QueueFileCorrupt
from libmail.queue.ids import is_queue_id
from libmail.service.pool import ServiceUnavailable
from libmail.service.skeleton import Runtime
from libmail.tables.table import TableRetry

__all__ = ["Maildrop"]

_DIRECTORY: Final = "maildrop"
_SETTLE: Final = 0.05  # seconds after a file has appeared
_ENVELOPE_ROOM: Final = 1 << 26  # octets of a file that are not content
_PIECE: Final = 1 << 18
_FILES: Final = 1000  # of one user in one look
_EVENTS: Final = 1 << 16  # octets of events to read at a time
_STOP_GRACE: Final = 5.0
_HOPELESS: Final = (errno.EACCES, errno.ELOOP, errno.ENXIO, errno.ESPIPE)  # trying again is


class Unsuitable(Exception):
    """The file cannot become mail; the text says why."""


class Maildrop:
    """Looks through the directory, one look at a time, when told to."""

    def __init__(self, prepared: Prepared, submitter: Submitter) -> None:
        self._params = prepared.params
        self._users = prepared.users
        self._submitter = submitter
        self._wanted = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[object] | None = None

    def look(self) -> None:
        """Look through the directory soon."""
        self._wanted.set()

    def begin(self, runtime: Runtime) -> None:
        """Be ready to look, and do so whenever a file has been completed."""
        self._task = runtime.spawn(self._run())
        try:
            manager = pyinotify.WatchManager()
        except OSError as err:
            LOG.warning(f"cannot watch {_DIRECTORY}: {err.strerror}")
            return
        manager.add_watch(_DIRECTORY, pyinotify.IN_ATTRIB | pyinotify.IN_MOVED_TO)
        asyncio.get_running_loop().add_reader(manager.get_fd(), self._changed, manager.get_fd())

    def _changed(self, fd: int) -> None:
        """Something has: what, is not of interest, and anybody chooses the names in the events."""
        os.read(fd, _EVENTS)
        asyncio.get_running_loop().call_later(_SETTLE, self.look)

    async def stop(self) -> None:
        """Finish the file at hand, if that does not take long: half done, it may come twice."""
        self._stopping = True
        self._wanted.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_STOP_GRACE)
            self._task.cancel()

    async def _run(self) -> None:
        while not self._stopping:
            await self._wanted.wait()
            self._wanted.clear()
            names, more = _names()
            progress = False
            try:
                for name in names:
                    if self._stopping:
                        return
                    progress = await self.take(name) or progress
            except (ServiceUnavailable, TableRetry) as err:
                LOG.warning(f"{_DIRECTORY}: {err}")
            else:
                if more and progress:
                    self.look()

    async def take(self, name: str) -> bool:
        """Move one file into the queue, or aside if it is no mail. Returns whether it is gone.

        Raises ServiceUnavailable and TableRetry when it is no time to try others.
        """
        path = f"{_DIRECTORY}/{name}"
        try:
            _check_kind(os.lstat(path))  # before open(2), which may have effects on a device
            with QueueFile(path) as file:
                done = await self._submit(file, QueueId(name))
        except FileNotFoundError:
            return True
        except (Unsuitable, QueueFileCorrupt, WireError) as err:
            return _put_aside(path, name, str(err))
        except OSError as err:
            if err.errno in _HOPELESS:
                return _put_aside(path, name, os.strerror(err.errno))
            LOG.warning(f"{path}: {err.strerror}")
            return False
        if done:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return done

    async def _submit(self, file: QueueFile, name: QueueId) -> bool:
        """Whether the file is done with. Raises Unsuitable, and as `take`."""
        status = os.fstat(file.fd)
        _check_kind(status)
        self._check_size(file, status.st_size)
        if not await self._users.allows(status.st_uid):
            raise Unsuitable(self._users.refusal_of(status.st_uid))
        origin, envelope = self._envelope(file, status.st_uid, name)
        result = await self._submitter.submit(origin, envelope, _recipients(file), _content(file))
        if result.exit_status not in (EX_OK, EX_TEMPFAIL):
            raise Unsuitable(result.reason)
        return result.exit_status == EX_OK

    def _check_size(self, file: QueueFile, size: int) -> None:
        """Raises Unsuitable. size: of the file."""
        limit = self._params.message_size_limit
        if limit and file.preamble.size > limit:
            raise Unsuitable(f"message file too big: {file.preamble.size} octets, limit {limit}")
        if size > file.preamble.size + _ENVELOPE_ROOM:
            raise Unsuitable("too much besides the message")

    def _envelope(self, file: QueueFile, uid: int, name: QueueId) -> tuple[Origin, Envelope]:
        """What to submit the message with; a file of our own is one that postsuper -r moved.

        That releases it, so what once put it on hold counts no more.
        """
        envelope = file.envelope()
        if uid != os.getuid() or not envelope.message_id:
            return Origin(uid), self._submitter.user_envelope(envelope, uid)
        return Origin(uid, name), envelope._replace(
            cleanup_flags=self._submitter.flags,
            content_filter=self._params.content_filter,
            message_id="",
        )


def _check_kind(status: os.stat_result) -> None:
    """Raises Unsuitable."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise Unsuitable("not a regular file with one link")


def _recipients(file: QueueFile) -> list[Recipient]:
    """Those to do. Raises Unsuitable, QueueFileCorrupt."""
    recipients: list[Recipient] = []
    for recipient in file.recipients():
        if len(recipients) == MAX_RECIPIENTS:
            raise Unsuitable("too many recipients")
        recipients.append(recipient._replace(offset=0))
    return recipients


def _put_aside(path: str, name: str, why: str) -> bool:
    """Mail is not thrown away: an administrator finds it in the corrupt queue."""
    LOG.warning(f"{path}: {why}: saving to corrupt queue")
    try:
        os.rename(path, f"corrupt/{name}")
    except OSError as err:
        LOG.warning(f"rename {path}: {err.strerror}")
        return False
    return True


def _names() -> tuple[Iterator[str], bool]:
    """Files to look at, a user's in turn with those of others, and whether there are more.

    A regular file without the x bit is left alone: it is still being written, or its writer has
    died, and postsuper(1) removes it when it is old.
    """
    users: dict[int, deque[str]] = {}
    more = False
    with os.scandir(_DIRECTORY) as entries:
        for entry in entries:
            if not is_queue_id(entry.name):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IXUSR:
                    continue
                names = users.setdefault(status.st_uid, deque())
                if len(names) < _FILES:
                    names.append(entry.name)
                else:
                    more = True
    return _in_turns(deque(users.values())), more


def _in_turns(queues: deque[deque[str]]) -> Iterator[str]:
    while queues:
        names = queues.popleft()
        yield names.popleft()
        if names:
            queues.append(names)


async def _content(file: QueueFile) -> AsyncIterator[bytes]:
    header = file.preamble.header
    for offset in range(header.offset, header.end, _PIECE):
        yield file.read(offset, min(_PIECE, header.end - offset))
    for piece in file.body(_PIECE):
        yield piece
