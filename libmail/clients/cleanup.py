"""Submitting a message to cleanup(8).

Called by: smtpd, pickup, bounce, local and all others that create mail. Asks: `public/cleanup`.

    submission = await client.open(flags)
    submission.envelope(envelope, recipients)
    await submission.write(content)              # any number of times
    result = await submission.finish()           # or: submission.abort()

The content is a complete message in wire form (CRLF), not dot-stuffed. A small message reaches
cleanup in one system call. On a connection that is used again and again, the result of a message
has the queue id of the next one, so that `open` asks nothing: that one begins with its envelope.
`ServiceUnavailable` is always a
temporary error. A caller that gets it, or any other error, before `finish` has returned must not
report the message as accepted.
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from libmail.clients.milter import HandedOver
from libmail.ipc.batches import batches
from libmail.ipc.codec import CHUNK_END, WireError, chunk_parts
from libmail.ipc.messages import (
    CODEC,
    CleanupAbort,
    CleanupAmend,
    CleanupFlag,
    CleanupOpen,
    CleanupOpened,
    CleanupResult,
    Envelope,
    QueueId,
    Recipient,
    Recipients,
)
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = [
    "OVERRIDES",
    "CleanupClient",
    "MailClient",
    "MailSubmission",
    "Submission",
    "without_overridden",
]

OVERRIDES: Final[Mapping[str, CleanupFlag]] = {
    "no_address_mappings": CleanupFlag.BCC | CleanupFlag.MAP,
    "no_header_body_checks": CleanupFlag.FILTER,
    "no_milters": CleanupFlag.MILTER,
    "no_unknown_recipient_checks": CleanupFlag(0),
}
"""The words of receive_override_options, and what cleanup is not to do then."""


def without_overridden(flags: CleanupFlag, options: Iterable[str]) -> CleanupFlag:
    """Flags for a message, without what receive_override_options turns off."""
    for option in options:
        flags &= ~OVERRIDES.get(option, CleanupFlag(0))
    return flags


_BUFFER: Final = 1 << 16
_RECIPIENTS: Final = 500  # in a frame
_SOCKETS: Final = 8  # that are sent together


class MailSubmission(Protocol):
    """The interface of `Submission`, for programs that can do with another implementation."""

    queue_id: QueueId

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The envelope, before the content."""

    def milters(self, states: Sequence[HandedOver]) -> None:
        """Milters that are to see the content, before it. Raises ServiceUnavailable."""

    async def write(self, data: bytes) -> None:
        """Append to the content. Raises ServiceUnavailable."""

    def amend(self, amendment: CleanupAmend) -> None:
        """Change the envelope, between `write` and `finish`."""

    async def finish(self) -> CleanupResult:
        """End the content. Raises ServiceUnavailable."""

    def abort(self) -> None:
        """Drop the message."""


class MailClient(Protocol):
    """Where messages go: cleanup(8), or for a local user's smtpd pickup(8)."""

    async def open(self, flags: int) -> MailSubmission:
        """Begin a message. Raises ServiceUnavailable."""


class CleanupClient:
    """Makes submissions over a pool of connections, which several clients may share."""

    def __init__(self, pool: ServicePool, *, timeout: float = 3600.0) -> None:
        """pool: to `public/cleanup`. timeout: `ipc_timeout`, seconds for each answer."""
        self._pool = pool
        self._timeout = timeout

    async def open(self, flags: int) -> "Submission":
        """Begin a message; flags: CleanupFlag bits. Raises ServiceUnavailable."""
        idle = self._pool.take_idle()
        if idle is not None:
            promise, idle.promise = idle.promise, ""
            if promise:
                return Submission(self._pool, idle, QueueId(promise), self._timeout, flags)
            self._pool.release(idle)
        request = CleanupOpen(flags, another=idle is not None)
        connection, opened = await self._pool.begin(request, CleanupOpened, self._timeout)
        return Submission(self._pool, connection, opened.queue_id, self._timeout, flags)


class Submission:
    """One message on its way to cleanup. Ends with `finish` or `abort`, whatever happens."""

    __slots__ = ("_connection", "_flags", "_parts", "_pool", "_size", "_sockets", "_timeout",
                 "queue_id")  # fmt: skip

    def __init__(
        self,
        pool: ServicePool,
        connection: Connection,
        queue_id: QueueId,
        timeout: float,
        flags: int,
    ) -> None:
        """flags: CleanupFlag bits, which the envelope has, too."""
        self._pool = pool
        self._connection: Connection | None = connection
        self._timeout = timeout
        self._flags = flags
        self._parts: list[bytes | memoryview] = []  # not sent yet
        self._size = 0
        self._sockets: list[socket.socket] = []  # that go with these
        self.queue_id = queue_id

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The envelope; to be called once, before `write`.

        Raises WireError when an address or attribute has a NUL.
        """
        flags = envelope.cleanup_flags | self._flags
        if flags != envelope.cleanup_flags:
            envelope = envelope._replace(cleanup_flags=flags)
        self._add(CODEC.encode(envelope))
        self.recipients(recipients)

    def recipients(self, recipients: Iterable[Recipient]) -> None:
        """More recipients, after the envelope and before the content. Raises WireError."""
        for some in batches(tuple(recipients), _RECIPIENTS):
            self._add(CODEC.encode(Recipients(some)))

    def milters(self, states: Sequence[HandedOver]) -> None:
        """Milters that are to see the content, before it. Raises ServiceUnavailable."""
        for state, sock in states:
            self._add(CODEC.encode(state))
            if sock is not None:
                self._sockets.append(sock)
                if len(self._sockets) == _SOCKETS:
                    self._flush()

    def _add(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)

    async def write(self, data: bytes) -> None:
        """Append to the content; waits while cleanup is slow. Raises ServiceUnavailable."""
        self._parts += chunk_parts(data)
        self._size += len(data)
        if self._size >= _BUFFER:
            connection = self._flush()
            if not connection.write_paused:
                return
            try:
                async with asyncio.timeout(self._timeout):
                    await connection.drain()
            except (ConnectionLost, TimeoutError) as err:
                raise self._lost() from err

    def _flush(self) -> Connection:
        connection = self._connection
        if connection is None:
            raise ServiceUnavailable(f"{self._pool.path}: lost connection")
        try:
            self._send(connection)
        except (ConnectionLost, OSError) as err:
            raise self._lost() from err
        return connection

    def _send(self, connection: Connection) -> None:
        """Raises ConnectionLost; OSError if a socket has been closed meanwhile."""
        parts, self._parts = self._parts, []
        self._size = 0
        if self._sockets:
            descriptors = [sock.fileno() for sock in self._sockets]
            self._sockets = []
            connection.write_with(b"".join(parts), descriptors)
        else:
            connection.write_parts(parts)

    def _lost(self) -> ServiceUnavailable:
        self._drop()
        return ServiceUnavailable(f"{self._pool.path}: lost connection")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.discard(connection)

    def amend(self, amendment: CleanupAmend) -> None:
        """Change the envelope, between `write` and `finish`. Raises WireError for a NUL."""
        self._add(CODEC.encode(amendment))

    async def finish(self) -> CleanupResult:
        """End the content; with status 0 the message is on disk. Raises ServiceUnavailable."""
        self._parts.append(CHUNK_END)
        connection = self._flush()
        try:
            result = await self._pool.answer(connection, CleanupResult, self._timeout)
        except (ConnectionLost, WireError) as err:
            raise self._lost() from err
        except BaseException:
            self._drop()
            raise
        self._connection = None
        connection.promise = result.next_id
        self._pool.release(connection)
        return result

    def abort(self) -> None:
        """Drop the message. Does nothing after the end of the submission.

        What was written so far is sent all the same, so that cleanup logs its Message-Id.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._parts.append(CODEC.encode(CleanupAbort()))
        try:
            self._send(connection)
        except (ConnectionLost, OSError):
            self._pool.discard(connection)
        else:
            self._pool.release(connection)
