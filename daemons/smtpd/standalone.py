"""SMTP on standard input and output, for local users: `smtpd -S`, which sendmail -bs runs.

Called by: sendmail(1). Asks: pickup(8), `public/pickup`, which takes each message as one that the
calling user submitted, and knows from the kernel who that is. No restriction applies, and no
address is looked up. Needs nothing but the socket, and that of postlogd(8) for its log lines.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from daemons.smtpd.prepared import open_tables
from daemons.smtpd.server import Server
from daemons.smtpd.session import Session
from daemons.smtpd.verb import Verb
from daemons.smtpd.verbs import VERBS
from libmail.clients.milter import HandedOver
from libmail.config import Config, ConfigError, open_config
from libmail.ipc.batches import batches
from libmail.ipc.codec import CHUNK_END, WireError, encode_chunk
from libmail.ipc.messages import (
    CODEC,
    CleanupAmend,
    CleanupResult,
    CleanupStatus,
    Envelope,
    EnvelopeFlag,
    Nexthop,
    QueueId,
    Recipient,
    Recipients,
    ResolveReply,
    SubmitOpen,
    SubmitOpened,
    SubmitResult,
    Transport,
)
from libmail.log import Fatal
from libmail.log.setup import open_log
from libmail.lookup.facts import Client
from libmail.net.channel import ClientGone
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.text.printable import complain

__all__ = ["PickupClient", "run_standalone", "serve_descriptors"]

_READ: Final = 1 << 16
_GROUP: Final = 500  # recipients in a frame
_ADDRESS: Final = "127.0.0.1"
_EX_TEMPFAIL, _EX_CONFIG = 75, 78


class PickupClient:
    """Submits messages to pickup(8), in the way that `CleanupClient` does to cleanup(8)."""

    def __init__(self, pool: ServicePool) -> None:
        self._pool = pool
        self._count = 0

    async def open(self, flags: int) -> "PickupSubmission":
        """Begin a message; flags are ignored. The id is not that of the queue."""
        del flags
        self._count += 1
        return PickupSubmission(self._pool, QueueId(f"{os.getpid():X}{self._count:04X}"))


class PickupSubmission:
    """One message on its way to pickup, which is connected to when the content begins."""

    def __init__(self, pool: ServicePool, queue_id: QueueId) -> None:
        self._pool = pool
        self._connection: Connection | None = None
        self._head: list[bytes] = []
        self.queue_id = queue_id

    def envelope(self, envelope: Envelope, recipients: Iterable[Recipient]) -> None:
        """The envelope, before the content. Raises WireError."""
        opening = SubmitOpen(
            sender=envelope.sender,
            null_sender=not envelope.sender,
            full_name="",
            flags=envelope.flags & ~EnvelopeFlag.LOCAL,
            dsn_envid=envelope.dsn_envid,
            verp_delims=envelope.verp_delims,
            cleanup_flags=0,
            size=0,
        )
        self._head = [CODEC.encode(opening)]
        groups = batches(tuple(recipients), _GROUP)
        self._head += (CODEC.encode(Recipients(some)) for some in groups)

    def milters(self, states: Sequence[HandedOver]) -> None:
        """There are none: the message is shown to non_smtpd_milters after pickup(8)."""
        if states:
            raise AssertionError("Milters in a local user's session")

    async def write(self, data: bytes) -> None:
        """Append to the content. Raises ServiceUnavailable."""
        if self._connection is None:
            self._connection = await self._pool.connect()
            self._head.append(b"")
        chunk = encode_chunk(data) if data else b""
        try:
            self._connection.write(b"".join([*self._head, chunk]))
            self._head.clear()
            await self._connection.drain()
        except ConnectionLost as err:
            raise ServiceUnavailable(f"{self._pool.path}: lost connection") from err

    def amend(self, amendment: CleanupAmend) -> None:
        """Never called with a change, as no restriction applies to local users."""

    async def finish(self) -> CleanupResult:
        """End the content; with status 0 the message is in the queue. Raises ServiceUnavailable."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise ServiceUnavailable(f"{self._pool.path}: nothing was sent")
        try:
            connection.write(CHUNK_END)
            result = await connection.receive()
            if isinstance(result, SubmitOpened):
                result = await connection.receive()
            if not isinstance(result, SubmitResult):
                raise WireError(f"unexpected {type(result).__name__}")
        except (ConnectionLost, WireError) as err:
            raise ServiceUnavailable(f"{self._pool.path}: {err or 'lost connection'}") from err
        finally:
            self._pool.discard(connection)
        if not result.exit_status:
            return CleanupResult(0, "2.0.0", "", result.queue_id)
        temporary = result.exit_status == _EX_TEMPFAIL
        status = CleanupStatus.DEFER if temporary else CleanupStatus.CONTENT
        dsn = "4.3.0" if temporary else "5.7.1"
        return CleanupResult(int(status), dsn, f"Error: {result.reason}", result.queue_id)

    def abort(self) -> None:
        """Drop the message."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.discard(connection)


class StandardChannel:
    """Standard input and output as a session's connection."""

    def __init__(self, source: int, target: int) -> None:
        """source, target: descriptors."""
        self._source = source
        self._target = target

    def write(self, data: bytes) -> None:
        """Send; blocks while the reader is slow, as there is no other session."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._target, view) :]
        except OSError:
            return  # nobody reads the replies; the end of the input ends the session

    async def read(self, *, idle: bool) -> bytes:
        """What the client sent next. Raises ClientGone."""
        del idle
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(None, os.read, self._source, _READ)
        if not data:
            raise ClientGone
        return data

    async def give_way(self) -> None:
        """Do nothing: there is no other session."""

    def has_sent(self) -> bool:
        """No: a local program need not wait for the greeting."""
        return False

    def discard_input(self) -> None:
        """Do nothing: input is read on demand."""

    def close(self) -> None:
        """Leave the descriptors open: they are not ours."""


class _NoQuestions:
    """Accepts every address, as restrictions do not apply to local users."""

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """A reply without flags."""
        del sender
        return ResolveReply(0, Transport(""), Nexthop(""), address)

    async def resolve_completed(self, sender: str, address: str) -> ResolveReply:
        """As `resolve`."""
        return await self.resolve(sender, address)


async def _serve(config: Config, verbs: Mapping[str, Verb], source: int, target: int) -> None:
    prepared = open_tables(config, guard=False, stand_alone=True)
    params = prepared.params
    pickup = ServicePool(f"public/{params.pickup_service_name}", timeout=params.ipc_timeout)
    server = Server(prepared, _NoQuestions(), PickupClient(pickup), stand_alone=True)
    channel = StandardChannel(source, target)
    await Session(server, channel, verbs, Client(_ADDRESS)).run()


def serve_descriptors(config: Config, source: int = 0, target: int = 1) -> None:
    """Serve one session on two descriptors.

    Changes to the queue directory, where the socket of pickup is. Raises Fatal, ConfigError,
    OSError.
    """
    os.chdir(config.text("queue_directory"))
    asyncio.run(_serve(config, VERBS, source, target))


def run_standalone(arguments: Sequence[str]) -> int:
    """`smtpd -S`; the configuration is that of MAIL_CONFIG. Returns the exit status."""
    del arguments  # -S, and others that change nothing here
    try:
        config = open_config()
        open_log(config, "smtpd")
        serve_descriptors(config)
    except (Fatal, ConfigError, OSError) as err:
        complain("smtpd", f"fatal: {err}")
        return _EX_CONFIG
    return 0
