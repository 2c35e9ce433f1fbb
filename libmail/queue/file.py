"""The queue file: a format in which message content is never copied or encoded line by line.

    preamble   `PREAMBLE_SIZE` octets at offset 0, complete when the file is
    header     the message header, wire form (CRLF), without the empty line after it
    body       the rest, wire form, not dot-stuffed; begins with the empty line, if there is one
    envelope   attributes of the message, then a record for each recipient

Each part is an extent that the preamble points to, so that a part can be replaced by appending a
new one. A recipient's record begins with a state octet, which is overwritten in place when the
recipient is done:

    state      1 octet: `TODO` or `DONE`
    length     2 octets, big endian, of the rest
    fields     address, orig_rcpt, dsn_orcpt, notify: NUL-terminated; readers skip more of them

A file being written has mode 0600, a complete one 0700 (docs/queue.md tells the states). Times are
seconds since the epoch. A file may have belonged to another message before (spare.py); a small one
has a checksum of all of it (checksum.py).
"""

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import IntFlag
from functools import partial
from operator import add
from typing import Final, NamedTuple, cast

from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.queue.checksum import content_checksum
from libmail.queue.directory import QueueDirectory
from libmail.queue.envelope import BadEnvelope, encode_envelope, read_envelope, value_offset
from libmail.queue.ids import make_queue_id
from libmail.queue.spare import REUSABLE_SIZE, NewFile, SpareSupply

__all__ = [
    "ANY_STATE",
    "DONE",
    "FORCED_EXPIRY",
    "PREAMBLE_SIZE",
    "TODO",
    "ContentFlag",
    "Extent",
    "Preamble",
    "QueueFile",
    "QueueFileCorrupt",
    "QueueFileWriter",
    "open_queue_file",
]

PREAMBLE_SIZE: Final = 128
# Mode bit of a complete file that postsuper(1) -e sets: return the message at the next chance.
FORCED_EXPIRY: Final = 0o010
TODO: Final = b"R"
DONE: Final = b"D"
ANY_STATE: Final = TODO + DONE

_MAGIC: Final = b"\x93MAILQ1\n"
_LAYOUT: Final = struct.Struct("<8sII8QdIII")  # the last two are checksums
_CHECKED: Final = _LAYOUT.size - 8
_ATTRIBUTES: Final = 2  # of the extents
_OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # never wait for a FIFO
_FIRST_READ: Final = REUSABLE_SIZE
_FLUSH_AT: Final = 1 << 18
_MAX_RECORD: Final = 0xFFFF
_MAX_ENVELOPE: Final = 1 << 20
_LATEST: Final = 2.0**36  # of the epoch; the year 4147


class QueueFileCorrupt(Exception):
    """The file is no complete queue file; the text says what is wrong with it."""


class ContentFlag(IntFlag):
    """What scanning the content once has shown, so that delivery need not look again."""

    EIGHTBIT_HEADER = 1
    EIGHTBIT_BODY = 2
    LONG_LINES = 4  # some line has more than 998 octets before CRLF
    DOT_LINES = 8  # some line begins with a dot
    MIME_CONTENT = 16  # has a MIME-Version or Content-Type header


class Extent(NamedTuple):
    """A part of the file, in octets."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + self.length


_extent: Final = cast(Callable[[Iterable[int]], Extent], partial(tuple.__new__, Extent))


class Preamble(NamedTuple):
    """The fixed-size record that describes a queue file.

    flags: ContentFlag bits. size: octets of header and body, as logged. attributes, recipients: the
    two halves of the envelope. recipient_count: records in it, done or not. checksum: of the file
    as it was completed, 0 for none.
    """

    flags: int
    header: Extent
    body: Extent
    attributes: Extent
    recipients: Extent
    arrival: float
    recipient_count: int
    checksum: int = 0

    @property
    def size(self) -> int:
        """Octets of message content."""
        return self.header.length + self.body.length

    @property
    def reusable(self) -> bool:
        """Whether the file may become another message's, when this one is over: see spare.py."""
        return self.checksum != 0

    def encode(self) -> bytes:
        """`PREAMBLE_SIZE` octets."""
        fixed = self.fixed()
        checksums = zlib.crc32(fixed).to_bytes(4, "little") + self.checksum.to_bytes(4, "little")
        return (fixed + checksums).ljust(PREAMBLE_SIZE, b"\0")

    def fixed(self) -> bytes:
        """The octets that the checksums are of."""
        flags, header, body, attributes, recipients, arrival, count, _ = self
        extents = *header, *body, *attributes, *recipients
        return _LAYOUT.pack(_MAGIC, 1, flags, *extents, arrival, count, 0, 0)[:_CHECKED]

    @classmethod
    def decode(cls, data: bytes, file_size: int) -> "Preamble":
        """From the first octets of a file of this size. Raises QueueFileCorrupt."""
        if len(data) < PREAMBLE_SIZE:
            raise QueueFileCorrupt("file too short")
        magic, version, flags, *extents, arrival, count, crc, checksum = _LAYOUT.unpack_from(data)
        if magic != _MAGIC or version != 1:
            raise QueueFileCorrupt("not a complete queue file")
        if crc != zlib.crc32(data[:_CHECKED]):
            raise QueueFileCorrupt("preamble checksum mismatch")
        offsets, lengths = extents[::2], extents[1::2]
        if min(offsets) < PREAMBLE_SIZE or max(map(add, offsets, lengths)) > file_size:
            raise QueueFileCorrupt(f"extent outside of the file of {file_size} octets")
        if lengths[_ATTRIBUTES] > _MAX_ENVELOPE:
            raise QueueFileCorrupt("envelope too large")
        if not 0 <= arrival < _LATEST:  # in maildrop a user has written it
            raise QueueFileCorrupt("bad arrival time")
        header, body, attributes, recipients = map(_extent, zip(offsets, lengths, strict=True))
        return cls(flags, header, body, attributes, recipients, arrival, count, checksum)


def _encode_recipient(recipient: Recipient) -> bytes:
    fields = "\0".join(
        (recipient.address, recipient.orig_rcpt, recipient.dsn_orcpt, str(recipient.notify), "")
    )
    data = fields.encode("utf-8", "surrogateescape")
    if len(data) > _MAX_RECORD or data.count(0) != 4:
        raise ValueError(f"bad recipient record: {recipient.address[:80]!r}")
    return TODO + len(data).to_bytes(2, "big") + data


def _decode_recipient(data: bytes, offset: int) -> Recipient:
    text = data.decode("utf-8", "surrogateescape")
    try:
        # Later versions may have more fields, behind these.
        address, orig_rcpt, dsn_orcpt, notify, *_, end = text.split("\0")
        if end:
            raise ValueError(end)
        return Recipient(address, orig_rcpt, dsn_orcpt, int(notify), offset)
    except ValueError:
        raise QueueFileCorrupt(f"bad recipient record at offset {offset}") from None


class QueueFileWriter:
    """Writes one queue file: header, body, then `complete`, then fsync by the caller, `close`.

    Small messages are written by one system call. The caller removes an unfinished file with
    `discard`. Everything here raises OSError as it comes.
    """

    __slots__ = ("_directory", "_offset", "_old_size", "_pending", "_size", "body", "fd", "header",
                 "queue_id", "queue_name")  # fmt: skip

    def __init__(
        self,
        directory: QueueDirectory,
        queue_name: str,
        *,
        long_ids: bool,
        now: float | None = None,
        supply: SpareSupply | None = None,
    ) -> None:
        """Create an empty file in the queue, or take one of the supply; now: for its id."""
        stamp = time.time_ns() // 1000 if now is None else int(now * 1e6)
        seconds, microseconds = divmod(stamp, 1_000_000)
        self.queue_name = queue_name
        self._directory = directory
        while True:
            file = supply.take() if supply is not None else None
            if file is None:
                file, supply = _create(queue_name, microseconds), None
            self.fd = file.fd
            self._old_size = file.size
            self.queue_id: QueueId = make_queue_id(seconds, microseconds, file.inode, long=long_ids)
            if self._name(file):
                break
        self._pending: list[bytes] = [bytes(PREAMBLE_SIZE)]
        self._size = PREAMBLE_SIZE  # of _pending
        self._offset = 0  # of _pending in the file
        self.header = Extent(PREAMBLE_SIZE, 0)
        self.body = Extent(PREAMBLE_SIZE, 0)

    def _name(self, file: NewFile) -> bool:
        """Give the file its name; False, and it is closed, if another has come in its place."""
        path = self.path
        try:
            try:
                os.rename(file.path, path)
            except FileNotFoundError:
                os.makedirs(
                    self._directory.folder(self.queue_name, self.queue_id), 0o700, exist_ok=True
                )
                os.rename(file.path, path)
            if not file.size or os.stat(path).st_ino == file.inode:
                return True
            os.unlink(path)
        except FileNotFoundError:
            if not file.size:
                raise
        os.close(file.fd)
        return False

    @property
    def path(self) -> str:
        """Relative to the queue directory."""
        return self._directory.path(self.queue_name, self.queue_id)

    def write_header(self, data: bytes) -> None:
        """Append to the header, before any body."""
        start, length = self.header
        length += len(data)
        self.header, self.body = Extent(start, length), Extent(start + length, 0)
        self._append(data)

    def write_body(self, data: bytes) -> None:
        """Append to the body."""
        self._append(data)
        self.body = Extent(self.body.offset, self.body.length + len(data))

    def read(self, offset: int, length: int) -> bytes:
        """What was written before, from this offset of the file."""
        if not self._offset:  # all of it is still here
            preamble, *parts = self._pending
            content = b"".join(parts)
            self._pending = [preamble, content]
            start = offset - PREAMBLE_SIZE
            return content[start : start + length]
        if self._size:
            self._flush()
        return os.pread(self.fd, length, offset)

    def replace_header(self, data: bytes) -> None:
        """Another header instead of the one that was written; the body stays."""
        self.header = Extent(self._offset + self._size, len(data))
        self._append(data)

    def begin_body(self, data: bytes) -> None:
        """Another body instead of the one that was written; data: its beginning."""
        self.body = Extent(self._offset + self._size, 0)
        self.write_body(data)

    def _append(self, data: bytes) -> None:
        self._pending.append(data)
        self._size += len(data)
        if self._size >= _FLUSH_AT:
            self._flush()

    def _flush(self) -> None:
        pending = self._pending
        while self._size:
            written = os.pwritev(self.fd, pending[:256], self._offset)
            self._offset += written
            self._size -= written
            if not self._size:
                break
            taken = 0
            while taken < len(pending) and written >= len(pending[taken]):
                written -= len(pending[taken])
                taken += 1
            del pending[:taken]
            if written:
                pending[0] = pending[0][written:]
        pending.clear()

    def complete(
        self,
        envelope: Envelope,
        recipients: Iterable[Recipient],
        flags: int,
        mode: int = 0o700,
    ) -> Preamble:
        """Write what is left and mark the file complete; durable only after fsync of `fd`.

        flags: ContentFlag bits. mode: must have the owner's x bit; others than 0700 are for
        maildrop.
        """
        attributes = encode_envelope(envelope)
        records = [_encode_recipient(recipient) for recipient in recipients]
        data = b"".join(records)
        start = self._offset + self._size
        before = Extent(start, len(attributes)), Extent(start + len(attributes), len(data))
        arrival, count = envelope.arrival, len(records)
        preamble = Preamble(flags, self.header, self.body, *before, arrival, count)
        end = start + len(attributes) + len(data)
        if end <= REUSABLE_SIZE:  # nothing has been written yet
            content = self._pending[1:]
            checksum = content_checksum(self.queue_id, preamble.fixed(), content, attributes, data)
            preamble = preamble._replace(checksum=checksum)
        self._append(attributes + data)
        if self._offset == 0 and self._pending:
            self._pending[0] = preamble.encode()
            self._flush()
        else:
            self._flush()
            os.pwrite(self.fd, preamble.encode(), 0)
        if self._old_size > end:
            os.ftruncate(self.fd, end)
        os.fchmod(self.fd, mode)
        return preamble

    def rename(self, queue_name: str) -> None:
        """Move the file to another queue (hold)."""
        self._directory.rename(self.queue_id, self.queue_name, queue_name)
        self.queue_name = queue_name

    def close(self) -> None:
        """Close the file, which stays."""
        os.close(self.fd)

    def discard(self) -> None:
        """Close and remove the file."""
        os.close(self.fd)
        self._directory.remove(self.queue_name, self.queue_id)


def _create(queue_name: str, microseconds: int) -> NewFile:
    temporary = f"{queue_name}/{microseconds:06d}.{os.getpid()}"
    while True:
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            temporary += "x"
        else:
            return NewFile(fd, os.fstat(fd).st_ino, 0, temporary)


def open_queue_file(path: str, *, writable: bool = False) -> int:
    """A descriptor. Raises OSError.

    The time of access is not noted, which would put the inode into the journal again.
    """
    flags = _OPEN_FLAGS | (os.O_RDWR if writable else os.O_RDONLY)
    try:
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:  # perhaps only because the file is another user's
        return os.open(path, flags)


class QueueFile:
    """A complete queue file, open for reading, or (writable) also for marking recipients.

    The constructor raises OSError, or QueueFileCorrupt when the file is not complete; `envelope`
    and the iterators raise QueueFileCorrupt too. A file smaller than 16 KiB is read by one system
    call.
    """

    __slots__ = ("_head", "fd", "path", "preamble")

    def __init__(self, path: str, *, writable: bool = False, fd: int = -1) -> None:
        """fd: the file, if it is open already; `close` closes it, and so does an error here."""
        self.path = path
        self.fd = fd if fd >= 0 else open_queue_file(path, writable=writable)
        try:
            self._head = os.pread(self.fd, _FIRST_READ, 0)
            size = len(self._head)
            if size == _FIRST_READ:
                size = os.fstat(self.fd).st_size
            self.preamble = Preamble.decode(self._head, size)
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> "QueueFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def read(self, offset: int, length: int) -> bytes:
        """These octets of the file. Raises QueueFileCorrupt when it has shrunk."""
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        data = os.pread(self.fd, length, offset)
        while len(data) < length:
            more = os.pread(self.fd, length - len(data), offset + len(data))
            if not more:
                raise QueueFileCorrupt("unexpected end of file")
            data += more
        return data

    def envelope(self) -> Envelope:
        """The attributes of the message."""
        try:
            return read_envelope(self.read(*self.preamble.attributes))
        except BadEnvelope as err:
            raise QueueFileCorrupt(f"bad envelope: {err}") from err

    def recipients(self, start: int = 0, *, states: bytes = TODO) -> Iterator[Recipient]:
        """The recipients still to do, in order, each with its offset; states: others, too.

        start: the offset of a recipient after which to go on; 0 for all.
        """
        first, length = self.preamble.recipients
        data = self.read(first, length)
        at = _next_record(data, start - first, start) if start else 0
        while at < length:
            after = _next_record(data, at, first + at)
            if data[at] in states:
                yield _decode_recipient(data[at + 3 : after], first + at)
            at = after

    def state(self, recipient: Recipient) -> bytes:
        """`TODO` or `DONE`."""
        return self.read(recipient.offset, 1)

    def mark_done(self, recipient: Recipient) -> None:
        """Overwrite the state of a recipient (from `recipients`) in place.

        Raises OSError; QueueFileCorrupt if there can be no record at its offset.
        """
        start, length = self.preamble.recipients
        if not start <= recipient.offset < start + length:
            raise QueueFileCorrupt(f"no recipient record at offset {recipient.offset}")
        os.pwrite(self.fd, DONE, recipient.offset)

    def header(self) -> bytes:
        """The message header, wire form."""
        return self.read(*self.preamble.header)

    def body(self, limit: int = _FLUSH_AT) -> Iterator[bytes]:
        """The body in pieces of at most `limit` octets."""
        offset, left = self.preamble.body
        while left:
            size = min(left, limit)
            yield self.read(offset, size)
            offset += size
            left -= size

    def small_content(self) -> bytes | None:
        """Header and body, if they came with the first read; None if they did not."""
        head, (start, length), body = self._head, self.preamble.header, self.preamble.body
        header_end, body_end = start + length, body.offset + body.length
        if header_end > len(head) or body_end > len(head):
            return None
        if body.offset == header_end:
            return head[start:body_end]
        return head[start:header_end] + head[body.offset : body_end]

    def mark_warned(self) -> None:
        """Make the envelope's warn_time negative in place: the delay notice was sent."""
        offset, length = self.preamble.attributes
        attributes = self.read(offset, length)
        at = value_offset(attributes, "warn_time")
        if at is not None:
            os.pwrite(self.fd, b"-", offset + at)

    def verify(self, queue_id: QueueId) -> None:
        """Whether it is what was written for this id, as a whole. Raises QueueFileCorrupt.

        A file without checksum, a large one or one of an earlier version, is not looked at.
        """
        preamble = self.preamble
        if not preamble.reusable:
            return
        header, attributes = PREAMBLE_SIZE, preamble.attributes
        content = self.read(header, attributes.offset - header)
        records = bytearray(self.read(*preamble.recipients))
        at = 0
        while at < len(records):
            after = _next_record(records, at, preamble.recipients.offset + at)
            records[at : at + 1] = TODO
            at = after
        checksum = content_checksum(
            queue_id, preamble.fixed(), (content,), self.read(*attributes), records
        )
        if checksum != preamble.checksum:
            raise QueueFileCorrupt("content checksum mismatch")


def _next_record(data: bytes | bytearray, at: int, offset: int) -> int:
    """Where the record after the one at `at` begins; offset: of `at` in the file, for messages."""
    after = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    if after > len(data) or data[at] not in ANY_STATE:
        raise QueueFileCorrupt(f"bad recipient record at offset {offset}")
    return after
