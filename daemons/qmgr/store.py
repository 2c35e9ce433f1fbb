"""The steps of a message through the queue directories, see docs/queue.md.

Each method is one legal step, or a harmless no-op when the file has vanished (postsuper -d).
"""

import fcntl
import os
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from daemons.qmgr.message import Message
from daemons.qmgr.open_files import OpenFiles
from libmail.ipc.messages import EnvelopeFlag, QueueId, Recipient, TraceFlag
from libmail.log import LOG
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import FORCED_EXPIRY, QueueFile, QueueFileCorrupt
from libmail.queue.reasons import ReasonLog
from libmail.queue.spare import SpareFiles

# Plain numbers: the operators of IntFlag are slow.
_VERIFY_ONLY: Final = EnvelopeFlag.VERIFY_ONLY.value
_VERBOSE: Final = EnvelopeFlag.VERBOSE.value
_PROBE: Final = EnvelopeFlag.PROBE.value
_TRACED: Final = _VERIFY_ONLY | _VERBOSE | _PROBE
_MTA_VERIFY: Final = TraceFlag.MTA_VERIFY.value
_USER_VERIFY: Final = TraceFlag.USER_VERIFY.value
_RECORD: Final = TraceFlag.RECORD.value


class StillDelivering(Exception):
    """An agent of an earlier queue manager is at work on the message."""


class Read(NamedTuple):
    """A message and the recipients to begin with; total: of all, done or not."""

    message: Message
    recipients: list[Recipient]
    total: int


class Store:
    """The queue as qmgr(8) uses it."""

    def __init__(self, directory: QueueDirectory, spare: SpareFiles) -> None:
        """spare: gets the files of messages that are over."""
        self.directory = directory
        self.spare: Final = spare
        self.files: Final = OpenFiles(directory)
        self.stuck: set[QueueId] = set()  # in active, though no longer active
        self._recovered: set[QueueId] = set()

    def recover(self) -> int:
        """After start: active -> incoming for every file. Returns how many there were.

        Their reports on deferral are of an earlier try.
        """
        for entry in list(self.directory.scan("active")):
            queue_id = QueueId(entry.name)
            try:
                self.directory.rename(queue_id, "active", "incoming")
            except FileNotFoundError:
                continue
            except OSError as err:
                LOG.warning(f"{queue_id}: rename from active to incoming: {err.strerror}")
                self.stuck.add(queue_id)
            else:
                self._recovered.add(queue_id)
                self._forget_deferral(queue_id)
        return len(self._recovered)

    def activate(self, queue_id: QueueId, queue_name: str, *, keep_log: bool = False) -> str:
        """incoming or deferred -> active. Returns its path there, "" if there was no file.

        keep_log: what is known of an earlier try is what the sender will be told.
        """
        path = self._move(queue_id, queue_name, "active")
        if path and queue_name == "deferred" and not keep_log:
            self._forget_deferral(queue_id)
        return path

    def _forget_deferral(self, queue_id: QueueId) -> None:
        """What an earlier try has left. If it stays, a report will tell of that try as well."""
        try:
            self.directory.remove("defer", queue_id)
        except OSError as err:
            LOG.warning(f"{queue_id}: remove defer log: {err.strerror}")

    def deferred_before(self, queue_id: QueueId) -> frozenset[int]:
        """The recipients (offsets) of which the defer log tells why."""
        try:
            targets = ReasonLog(self.directory, "defer").read(queue_id)
        except OSError as err:
            LOG.warning(f"{queue_id}: read defer log: {err.strerror}")
            return frozenset()
        return frozenset(target.offset for target in targets)

    def move(self, queue_id: QueueId, old: str, new: str) -> bool:
        """Rename; False if the file is not in `old`."""
        return bool(self._move(queue_id, old, new))

    def _move(self, queue_id: QueueId, old: str, new: str) -> str:
        """The new path, or ""."""
        try:
            return self.directory.rename(queue_id, old, new)
        except FileNotFoundError:
            return ""
        except OSError as err:
            LOG.warning(f"{queue_id}: rename from {old} to {new}: {err.strerror}")
            return ""

    def read(
        self, queue_id: QueueId, path: str, now: float, limit: int, *, announced: bool
    ) -> Read:
        """Read a file of the active queue, with at most `limit` recipients. It stays open.

        path: where it is. announced: cleanup(8) told of it, so that no power failure can have
        spoiled it. Raises OSError, QueueFileCorrupt, StillDelivering.
        """
        file = QueueFile(path, writable=True)
        try:
            if queue_id in self._recovered:
                self._check_idle(queue_id, file)
            fcntl.flock(file.fd, fcntl.LOCK_SH)
            if not announced:
                file.verify(queue_id)
            envelope, preamble = file.envelope(), file.preamble
            recipients = list(islice(file.recipients(), limit + 1))
        except BaseException:
            file.close()
            raise
        self.files.keep(queue_id, file.fd, now)
        size, arrival = preamble.size, preamble.arrival
        tflags = _trace_flags(envelope.flags) if envelope.flags & _TRACED else 0
        message = Message(queue_id, envelope, size, arrival, queued=now, tflags=tflags)
        message.reusable = self.spare.possible and preamble.reusable
        if len(recipients) > limit:
            del recipients[limit:]
            _more_to_read(message, recipients, preamble.recipient_count - limit)
        return Read(message, recipients, preamble.recipient_count)

    def _check_idle(self, queue_id: QueueId, file: QueueFile) -> None:
        try:
            fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StillDelivering from None
        self._recovered.discard(queue_id)

    def read_more(self, message: Message, limit: int) -> list[Recipient]:
        """The next recipients. Raises OSError, QueueFileCorrupt."""
        with QueueFile(self.directory.path("active", message.queue_id)) as file:
            recipients = list(islice(file.recipients(message.next_offset), limit + 1))
        if len(recipients) > limit:
            del recipients[limit:]
            _more_to_read(message, recipients, max(1, message.unread - limit))
        else:
            message.next_offset = message.unread = 0
        return recipients

    def mark_done(self, message: Message, recipients: Iterable[Recipient]) -> None:
        """Recipients that need no delivery. A vanished file is no error. Raises OSError."""
        try:
            with QueueFile(self.directory.path("active", message.queue_id), writable=True) as file:
                for recipient in recipients:
                    file.mark_done(recipient)
        except FileNotFoundError:
            return

    def mark_warned(self, message: Message) -> None:
        """Remember that a delay notice was sent."""
        path = self.directory.path("active", message.queue_id)
        try:
            with QueueFile(path, writable=True) as file:
                file.mark_warned()
        except (OSError, QueueFileCorrupt) as err:
            LOG.warning(f"update queue file {path}: {err}")

    def has_log(self, kind: str, queue_id: QueueId) -> bool:
        """Whether there is a bounce, defer or trace log for the message; also if nobody can say.

        The service of that name then says what is the matter, and the message stays.
        """
        path = self.directory.path(kind, queue_id)
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
        except OSError as err:
            LOG.warning(f"{queue_id}: look for {path}: {err.strerror}")
        return True

    def expiry_forced(self, queue_id: QueueId) -> bool:
        """Whether postsuper -e was called for a message of the active queue."""
        try:
            return bool(os.stat(self.directory.path("active", queue_id)).st_mode & FORCED_EXPIRY)
        except OSError:
            return False

    def defer(self, queue_id: QueueId, next_try: float) -> None:
        """active -> deferred, to be tried again at next_try (of the epoch)."""
        path = self.directory.path("active", queue_id)
        try:
            os.utime(path, (next_try, next_try))
        except FileNotFoundError:
            return
        except OSError as err:
            LOG.warning(f"{queue_id}: update {path} time stamps: {err.strerror}")
        self._defer(queue_id)

    def _defer(self, queue_id: QueueId) -> None:
        try:
            self.directory.rename(queue_id, "active", "deferred")
        except FileNotFoundError:
            pass
        except OSError as err:
            LOG.warning(f"{queue_id}: rename from active to deferred: {err.strerror}")
            self.stuck.add(queue_id)

    def retry(self) -> None:
        """Let go of the files that could not be moved out of active when they should have been."""
        stuck, self.stuck = self.stuck, set()
        for queue_id in stuck:
            self._defer(queue_id)

    def remove(self, messages: Iterable[Message]) -> list[bool | OSError]:
        """The last step: every recipient is done, every report is sent. May run in a thread.

        Returns of each whether it was there, or why it could not be removed.
        """
        return [self._remove(message) for message in messages]

    def _remove(self, message: Message) -> bool | OSError:
        queue_id = message.queue_id
        if message.reusable and self.spare.keep(self.directory.path("active", queue_id)):
            return True
        try:
            return self.directory.remove("active", queue_id)
        except OSError as err:
            return err

    def keep(self, queue_id: QueueId, why: OSError) -> None:
        """The file of a message that is over could not be removed."""
        LOG.warning(f"{queue_id}: remove from active: {why.strerror}")
        self.stuck.add(queue_id)

    def set_aside(self, queue_id: QueueId, reason: str) -> None:
        """active -> corrupt."""
        LOG.warning(f"{queue_id}: corrupted queue file: {reason}")
        LOG.warning(f'saving corrupt file "{queue_id}" from queue "active" to queue "corrupt"')
        if not self.move(queue_id, "active", "corrupt"):
            self.stuck.add(queue_id)


def _more_to_read(message: Message, recipients: list[Recipient], unread: int) -> None:
    message.next_offset = recipients[-1].offset
    message.unread = max(1, unread)


def _trace_flags(envelope_flags: int) -> int:
    flags = 0
    if envelope_flags & _VERIFY_ONLY:
        flags |= _USER_VERIFY
    if envelope_flags & _PROBE:
        flags |= _MTA_VERIFY
    if envelope_flags & _VERBOSE:
        flags |= _RECORD
    return flags
