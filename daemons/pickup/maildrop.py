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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Final

import pyinotify

from daemons.pickup.params import Prepared
from daemons.pickup.source import Source, Unsuitable, read_source
from daemons.pickup.submit import EX_OK, EX_TEMPFAIL, MAX_RECIPIENTS, Origin, Submitter
from libmail.ipc.codec import WireError
from libmail.ipc.messages import Envelope, QueueId
from libmail.log import LOG
from libmail.queue.file import QueueFileCorrupt
from libmail.queue.foreign_records import ForeignFileError
from libmail.queue.ids import is_queue_id
from libmail.service.pool import ServiceUnavailable
from libmail.service.skeleton import Runtime
from libmail.tables.table import TableRetry

__all__ = ["Maildrop"]

_DIRECTORY: Final = "maildrop"
_MOST_REST: Final = 5.0  # seconds after a look; it rests as long as it has worked
_SETTLE: Final = 0.05  # seconds after a file has appeared
_FILES: Final = 1000  # of one user in one look
_EVENTS: Final = 1 << 16  # octets of events to read at a time
_STOP_GRACE: Final = 5.0
_CORRUPT: Final = 1000  # files that may be put aside; any user can make them
_NOTED: Final = 10_000  # files that are known to be no mail
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_HOPELESS: Final = (errno.EACCES, errno.ELOOP, errno.ENXIO, errno.ESPIPE)  # trying again is


Mark = tuple[int, int]  # inode, time of its last change


class Maildrop:
    """Looks through the directory, one look at a time, when told to."""

    def __init__(self, prepared: Prepared, submitter: Submitter) -> None:
        self._params = prepared.params
        self._users = prepared.users
        self._senders = prepared.senders
        self._submitter = submitter
        self._wanted = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[object] | None = None
        self._noted: dict[str, Mark] = {}  # files that stay, and of which the log has told

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
        loop = asyncio.get_running_loop()
        while not self._stopping:
            await self._wanted.wait()
            self._wanted.clear()
            began = loop.time()
            names, more = _names(self._noted)
            progress = False
            try:
                for name in names:
                    if self._stopping:
                        return
                    progress = await self.take(name) or progress
            except (ServiceUnavailable, TableRetry) as err:
                LOG.seldom(f"{_DIRECTORY}", f": {err}")
            else:
                if more and progress:
                    self.look()
            await asyncio.sleep(min(_MOST_REST, loop.time() - began))  # whoever calls for looks

    async def take(self, name: str) -> bool:
        """Move one file into the queue, or aside if it is no mail. Returns whether it is gone.

        Raises ServiceUnavailable and TableRetry when it is no time to try others.
        """
        path = f"{_DIRECTORY}/{name}"
        try:
            _check_kind(os.lstat(path))  # before open(2), which may have effects on a device
            done = await self._take(path, QueueId(name))
        except FileNotFoundError:
            return True
        except (Unsuitable, QueueFileCorrupt, ForeignFileError, WireError) as err:
            return self._put_aside(path, name, str(err))
        except OSError as err:
            if err.errno in _HOPELESS:
                return self._put_aside(path, name, os.strerror(err.errno))
            LOG.seldom(f"{_DIRECTORY}: cannot read a file", f": {path}: {err.strerror}")
            return False
        if done:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return done

    async def _take(self, path: str, name: QueueId) -> bool:
        """Whether the file is done with. Raises Unsuitable, and as `take`."""
        fd = os.open(path, _OPEN)
        try:
            status = os.fstat(fd)
            _check_kind(status)
            if not await self._users.allows(status.st_uid):
                raise Unsuitable(self._users.refusal_of(status.st_uid))
            limits = (self._params.message_size_limit, MAX_RECIPIENTS)
            source = await read_source(path, fd, limits, name)
            return await self._submit(source, status.st_uid, name)
        finally:
            os.close(fd)

    async def _submit(self, source: Source, uid: int, name: QueueId) -> bool:
        origin, envelope = self._envelope(source, uid, name)
        if not origin.orig_id:
            refusal = await self._senders.refusal(uid, envelope.sender)
            if refusal:
                raise Unsuitable(refusal)
        content = source.content()
        result = await self._submitter.submit(origin, envelope, source.recipients, content)
        if result.exit_status not in (EX_OK, EX_TEMPFAIL):
            raise Unsuitable(result.reason)
        return result.exit_status == EX_OK

    def _put_aside(self, path: str, name: str, why: str) -> bool:
        """Mail is not thrown away: an administrator finds it in the corrupt queue.

        What cannot go there stays, and is not looked at again until it changes.
        """
        if not _corrupt_has_room():
            LOG.seldom(f"{_DIRECTORY}: the corrupt queue is full", f": {path} stays: {why}")
        else:
            try:
                os.rename(path, f"corrupt/{name}")
            except OSError as err:
                LOG.seldom(f"{_DIRECTORY}: cannot move a file", f": {path}: {why}: {err.strerror}")
            else:
                LOG.warning(f"{path}: {why}: saving to corrupt queue")
                return True
        self._note(path, name)
        return False

    def _note(self, path: str, name: str) -> None:
        if len(self._noted) >= _NOTED:
            self._noted.clear()
        with suppress(FileNotFoundError):
            self._noted[name] = _mark(os.lstat(path))

    def _envelope(self, source: Source, uid: int, name: QueueId) -> tuple[Origin, Envelope]:
        """What to submit the message with; a file of our own is one that postsuper -r moved.

        That releases it, so what once put it on hold counts no more.
        """
        if uid != os.getuid() or not source.requeued:
            return Origin(uid), self._submitter.user_envelope(source.envelope, uid)
        return Origin(uid, name), source.envelope._replace(
            cleanup_flags=self._submitter.flags,
            content_filter=self._params.content_filter,
            message_id="",
        )


def _check_kind(status: os.stat_result) -> None:
    """Raises Unsuitable."""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise Unsuitable("not a regular file with one link")


def _corrupt_has_room() -> bool:
    try:
        with os.scandir("corrupt") as entries:
            return sum(1 for _ in islice(entries, _CORRUPT)) < _CORRUPT
    except OSError:
        return True  # to find out by the move


def _mark(status: os.stat_result) -> Mark:
    """What changes with a file that is not the same any more."""
    return status.st_ino, status.st_ctime_ns


def _names(noted: Mapping[str, Mark]) -> tuple[Iterator[str], bool]:
    """Files to look at, a user's in turn with those of others, and whether there are more.

    noted: files that are left out as long as they do not change.

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
                if noted and noted.get(entry.name) == _mark(status):
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
