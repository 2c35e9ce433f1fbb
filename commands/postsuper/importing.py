"""postsuper --import: take over the mail in the queue of an original Postfix.

Reads: that queue, as root. Writes: staging and the queue (see `staging`), as mail_owner. The
originals stay as they are. What is imported goes where it was: held mail to hold, deferred mail to
deferred with its time of the next try, submissions to maildrop, all other to incoming.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from commands.postsuper.spool import REASON_LOGS, Original, Spool, open_original
from commands.postsuper.staging import DIRECTORY, Key, Staged, Staging
from libmail.ipc.messages import Envelope, EnvelopeFlag, QueueId
from libmail.log import LOG
from libmail.message.content import ContentScan, StrayFilter
from libmail.message.headers import Field, fields, scan
from libmail.privileges import Identity, acting_as
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import FORCED_EXPIRY, ContentFlag, QueueFile, QueueFileWriter
from libmail.queue.foreign_message import ForeignMessage
from libmail.queue.foreign_reasons import foreign_targets
from libmail.queue.foreign_records import ForeignFileError, ReadAt
from libmail.queue.reasons import ReasonLog

__all__ = ["ImportParams", "Tally", "import_spool"]

_AT_ONCE: Final = 100  # messages that are committed together
_MAX_HEADER: Final = 1 << 22
_READABLE_BY_PICKUP: Final = 0o740
_MIME: Final = (b"mime-version", b"content-type")
_TARGETS: Final = {"maildrop": "maildrop", "hold": "hold", "deferred": "deferred"}


@dataclass(frozen=True, slots=True)
class ImportParams:
    """Parameters of postsuper --import."""

    cleanup_replace_stray_cr_lf: bool
    enable_long_queue_ids: bool
    remote_header_rewrite_domain: str


@dataclass(slots=True)
class Tally:
    """How many files of the original's queue were what."""

    imported: int = 0
    known: int = 0
    unfinished: int = 0  # were being received; nobody was promised anything
    probes: int = 0  # of verify(8)
    failed: int = 0


def import_spool(
    spool: Spool, directory: QueueDirectory, params: ImportParams, owner: Identity, *,
    privileged: bool,
) -> Tally:  # fmt: skip
    """Import all that has not been imported yet. Raises OSError, ImportUnderWay.

    The working directory is that of the queue. owner: of the queue. privileged: this is root.
    """
    if not os.path.isdir(DIRECTORY):
        os.mkdir(DIRECTORY, 0o700)
        if privileged:
            os.chown(DIRECTORY, owner.uid, owner.gid, follow_symlinks=False)
    importer = _Importer(spool, directory, params, owner, privileged=privileged)
    try:
        return importer.run()
    finally:
        importer.close()


class _Importer:
    def __init__(
        self, spool: Spool, directory: QueueDirectory, params: ImportParams, owner: Identity, *,
        privileged: bool,
    ) -> None:  # fmt: skip
        self._spool = spool
        self._directory = directory
        self._params = params
        self._owner = owner
        self._privileged = privileged
        self._tally = Tally()
        with self._as_owner():
            self._staging = Staging(directory)

    def _as_owner(self) -> AbstractContextManager[None]:
        return acting_as(self._owner) if self._privileged else nullcontext()

    def close(self) -> None:
        self._staging.close()

    def run(self) -> Tally:
        with self._as_owner():
            finished, undone = self._staging.recover()
        if finished or undone:
            LOG.info(f"interrupted import: {finished} finished, {undone} to be done again")
        for original in self._spool.messages():
            self._import(original)
            if len(self._staging) >= _AT_ONCE:
                self._commit()
        self._commit()
        return self._tally

    def _commit(self) -> None:
        with self._as_owner():
            self._staging.commit()

    def _import(self, original: Original) -> None:
        try:
            fd = open_original(original.path)
        except FileNotFoundError:
            return
        except OSError as err:
            self._fail(original, str(err.strerror))
            return
        try:
            self._import_file(original, fd)
        except ForeignFileError as err:
            self._fail(original, str(err))
        finally:
            os.close(fd)

    def _fail(self, original: Original, why: str) -> None:
        LOG.warning(f"{original.path}: not imported: {why}")
        self._tally.failed += 1

    def _import_file(self, original: Original, fd: int) -> None:
        """Raises ForeignFileError, OSError."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ForeignFileError("not a regular file")
        if not status.st_mode & stat.S_IXUSR:
            self._tally.unfinished += 1
            return
        message = ForeignMessage(_reader(fd), status.st_size, original.queue_id)
        message.head()
        key = Key.of(original.queue_id, message.arrival, message.sender or "")
        if self._staging.knows(key):
            self._tally.known += 1
        elif message.probe:
            self._tally.probes += 1
        else:
            self._stage(original, key, message, status)

    def _stage(
        self, original: Original, key: Key, message: ForeignMessage, status: os.stat_result
    ) -> None:
        queue_name = _TARGETS.get(original.queue_name, "incoming")
        logs = {kind: self._spool.log(kind, original.queue_id) for kind in REASON_LOGS}
        with self._as_owner():
            writer = self._staging.writer(
                message.arrival,
                original.queue_id,
                long_ids=self._params.enable_long_queue_ids,
            )
            try:
                offsets = self._write(writer, message, _mode(queue_name, status))
                self._write_logs(writer.queue_id, logs, offsets)
            except BaseException:
                self._staging.discard(writer)
                raise
        if queue_name == "deferred":
            os.utime(writer.fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        if queue_name == "maildrop" and self._privileged:
            ours = status.st_uid == self._spool.owner
            os.fchown(writer.fd, self._owner.uid if ours else status.st_uid, self._owner.gid)
        self._staging.add(Staged(key, writer.fd, writer.queue_id, queue_name))
        LOG.info(f"{writer.queue_id}: imported from {original.path}")
        self._tally.imported += 1

    def _write(self, writer: QueueFileWriter, message: ForeignMessage, mode: int) -> dict[int, int]:
        """The whole file. Returns where recipients are now, by where they were."""
        pieces = message.content()
        if self._params.cleanup_replace_stray_cr_lf:
            pieces = _without_strays(pieces)
        content = ContentWriter(writer)
        for piece in pieces:
            content.feed(piece)
        content.end()
        envelope = self._here(message.finish(content.message_id))
        found = message.recipients
        try:
            writer.complete(envelope, (one.recipient for one in found), content.flags, mode)
        except ValueError as err:
            raise ForeignFileError(str(err)) from err
        offsets = {}
        with QueueFile(writer.path, writable=True) as file:
            for old, new in zip(found, file.recipients(), strict=True):
                offsets[old.recipient.offset] = new.offset
                if old.done:
                    file.mark_done(new)
        return offsets

    def _here(self, envelope: Envelope) -> Envelope:
        """The envelope with what we call what the original calls the remote context."""
        if envelope.rewrite_context == "local":
            return envelope
        return envelope._replace(
            rewrite_context=self._params.remote_header_rewrite_domain,
            flags=envelope.flags | EnvelopeFlag.RELAYED,
        )

    def _write_logs(
        self, queue_id: QueueId, logs: Mapping[str, tuple[bytes, float]], offsets: dict[int, int]
    ) -> None:
        for kind, (data, time) in logs.items():
            targets = list(foreign_targets(data, offsets, time))
            if targets:
                fd = ReasonLog(self._directory, kind).append(queue_id, targets)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def _reader(fd: int) -> ReadAt:
    def read(offset: int, size: int) -> bytes:
        try:
            return os.pread(fd, size, offset)
        except OSError as err:  # which is not to be taken for one of our own queue
            raise ForeignFileError(str(err.strerror)) from err

    return read


def _mode(queue_name: str, status: os.stat_result) -> int:
    if queue_name == "maildrop":
        return _READABLE_BY_PICKUP
    return 0o700 | status.st_mode & FORCED_EXPIRY  # the bit is that of Postfix


def _without_strays(pieces: Iterator[bytes]) -> Iterator[bytes]:
    strays = StrayFilter()
    yield from map(strays.feed, pieces)
    yield strays.end()


class ContentWriter:
    """Splits content into header and body, and finds out what cleanup(8) would find out.

    After `end`: flags, ContentFlag bits; message_id, "" if there is none.
    """

    def __init__(self, writer: QueueFileWriter) -> None:
        self.flags = 0
        self.message_id = ""
        self._writer = writer
        self._scan = ContentScan()
        self._head: bytes | None = b""  # until the header is complete

    def feed(self, data: bytes) -> None:
        """A piece of content, in wire form."""
        if self._head is None:
            self._scan.feed(data)
            self._writer.write_body(data)
            return
        self._head += data
        found = scan(self._head)
        if found.complete or len(self._head) > _MAX_HEADER:
            self._end_header(found.fields, found.end)

    def _end_header(self, fields: Sequence[Field], end: int) -> None:
        head, self._head = self._head or b"", None
        for name, _, value, after in fields:
            if name == b"message-id" and not self.message_id:
                text = head[value:after].decode("utf-8", "surrogateescape")
                self.message_id = " ".join(text.split())
            elif name in _MIME:
                self.flags |= ContentFlag.MIME_CONTENT
        self._scan.feed(head[:end])
        if self._scan.eightbit:
            self.flags |= ContentFlag.EIGHTBIT_HEADER
            self._scan.eightbit = False
        self._writer.write_header(head[:end])
        self.feed(head[end:])

    def end(self) -> None:
        """There is no more."""
        if self._head is not None:
            found = fields(self._head)
            self._end_header(found, found[-1].end if found else 0)
        if self._scan.eightbit:
            self.flags |= ContentFlag.EIGHTBIT_BODY
        if self._scan.long_lines:
            self.flags |= ContentFlag.LONG_LINES
        if self._scan.dots:
            self.flags |= ContentFlag.DOT_LINES
