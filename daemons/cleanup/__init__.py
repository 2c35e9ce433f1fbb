"""cleanup(8): make a message canonical and put it into the incoming queue.

Called by: smtpd, pickup, bounce, local, verify, over `public/cleanup`. Asks: rewrite, tables,
Milters. Writes: the queue file. Tells: qmgr; bounce and trace (reports). Needs: the queue, tables.

An exchange, see libmail.ipc.messages: CleanupOpen makes the file, unless the result of the message
before it on the same connection has told of one; Envelope, Recipients and content fill it;
CleanupAmend changes the envelope afterwards, MilterState hands over a Milter connection of
the session. The CleanupResult after the content means, with status 0, that the message is on disk.

message        one message, from the creation of its file to the answer
recipients     its recipients; mapping: canonical, masquerading, virtual aliases
header         its header; missing: fields to add
inspection     header_checks, body_checks; milters: Milters at the end of the message
envelope_limits, size, status   what is refused, and how the client hears of it
final, notify, reports          the end: the final envelope, qmgr, reports to the sender
"""

import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from daemons.cleanup.header import HeaderEditor
from daemons.cleanup.inspection import Inspector
from daemons.cleanup.mapping import AddressMapper, MappingTables
from daemons.cleanup.message import Message, Shared, new_file
from daemons.cleanup.milters import MilterSelection
from daemons.cleanup.notify import QmgrClient
from daemons.cleanup.params import (
    CleanupParams,
    HeaderParams,
    InspectionParams,
    MappingParams,
)
from daemons.cleanup.raw import RawParams, RawRules
from daemons.cleanup.recipients import BccTables
from daemons.cleanup.reports import Reports
from daemons.cleanup.status import no_space
from libmail.clients.milter import MilterLink
from libmail.clients.milters import MilterParams, Milters
from libmail.clients.rewrite import RewriteClient
from libmail.config import ConfigError
from libmail.config.interfaces import own_interfaces
from libmail.files.commit import GroupCommit
from libmail.ipc.codec import Chunk, WireError
from libmail.ipc.messages import (
    CleanupAbort,
    CleanupAmend,
    CleanupFlag,
    CleanupOpen,
    CleanupOpened,
    CleanupResult,
    Envelope,
    MilterState,
    QueueId,
    Recipients,
)
from libmail.log import LOG
from libmail.lookup.content_checks import CheckTables
from libmail.lookup.destination import LocalDomains, proxy_addresses
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFileWriter
from libmail.queue.spare import SpareSupply
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service, Startup
from libmail.tables.maps import Maps
from libmail.tables.match import StringList
from libmail.tables.table import TableOptions

__all__ = ["SERVICE"]

_UNLIMITED: Final = int(CleanupFlag.UNLIMITED)
_SPACE_CHECK: Final = 1.0  # seconds for which an answer about free space is good


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is read and opened before the jail."""

    params: CleanupParams
    mapping: MappingParams
    headers: HeaderParams
    tables: MappingTables
    bcc: BccTables
    inspector: Inspector
    raw: RawRules
    milters: MilterSelection


def prepare(startup: Startup) -> Prepared:
    """Read the parameters and open the tables, before the jail."""
    config = startup.config
    params, mapping = config.load(CleanupParams), config.load(MappingParams)
    options = TableOptions.of(startup.config)

    def maps(title: str, specs: tuple[str, ...]) -> Maps:
        return Maps(title, specs, options)

    own = own_interfaces(mapping.inet_interfaces, mapping.inet_protocols)
    tables = MappingTables(
        local_domains=LocalDomains(
            StringList("mydestination", mapping.mydestination, options),
            [*(one.address for one in own), *proxy_addresses(mapping.proxy_interfaces)],
        ),
        canonical_maps=maps("canonical_maps", mapping.canonical_maps),
        sender_canonical_maps=maps("sender_canonical_maps", mapping.sender_canonical_maps),
        recipient_canonical_maps=maps("recipient_canonical_maps", mapping.recipient_canonical_maps),
        masquerade_exceptions=StringList(
            "masquerade_exceptions", mapping.masquerade_exceptions, options
        ),
        virtual_alias_maps=maps("virtual_alias_maps", mapping.virtual_alias_maps),
    )
    bcc = BccTables(
        maps("sender_bcc_maps", params.sender_bcc_maps),
        maps("recipient_bcc_maps", params.recipient_bcc_maps),
    )
    inspection = config.load(InspectionParams)
    milters = Milters(config.load(MilterParams))
    try:
        non_smtpd = milters.parse(params.non_smtpd_milters)
    except ValueError as error:
        raise ConfigError(f"non_smtpd_milters: {error}") from None
    selection = MilterSelection(milters, non_smtpd, _milter_inspector(inspection, options))
    inspector = _inspector(inspection, options)
    raw = RawRules(config.load(RawParams), inspector.limits)
    headers = config.load(HeaderParams)
    return Prepared(params, mapping, headers, tables, bcc, inspector, raw, selection)


def _inspector(params: InspectionParams, options: TableOptions) -> Inspector:
    options = replace(options, utf8=False)  # content may be in any encoding
    specs = (
        params.header_checks, params.mime_header_checks, params.nested_header_checks,
        params.body_checks,
    )  # fmt: skip
    return Inspector(params, CheckTables.open("", specs, options))


def _milter_inspector(params: InspectionParams, options: TableOptions) -> Inspector | None:
    """Of fields that Milters make; None where nothing is to be inspected."""
    options = replace(options, utf8=False)
    found = Maps("milter_header_checks", params.milter_header_checks, options)
    none = Maps("none", (), options)
    tables = CheckTables(header=found, mime=none, nested=none, body=none)
    return Inspector(params, tables) if found else None


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Serve clients that submit messages."""
    params = prepared.params

    def pool(path: str) -> ServicePool:
        return ServicePool(
            path, idle=params.ipc_idle, life=params.ipc_ttl, timeout=params.ipc_timeout
        )

    def rarely_used(path: str) -> ServicePool:
        """For services that are clients of cleanup, too: with kept connections in both directions
        each of the two processes would wait for the other when the system is stopped."""
        return ServicePool(path, idle=0.0, timeout=params.ipc_timeout)

    signal.signal(signal.SIGIO, signal.SIG_IGN)  # see SpareSupply
    rewriter = RewriteClient(pool(f"private/{params.rewrite_service_name}"))
    mapper = AddressMapper(prepared.mapping, prepared.tables, rewriter)
    shared = Shared(
        params=params,
        directory=QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth),
        supply=SpareSupply(),
        mapper=mapper,
        editor=HeaderEditor(prepared.headers, mapper, prepared.inspector.parts),
        inspector=prepared.inspector,
        raw=prepared.raw,
        bcc=prepared.bcc,
        commit=GroupCommit(),
        reports=Reports(
            rarely_used(f"private/{params.bounce_service_name}"),
            rarely_used(f"private/{params.trace_service_name}"),
        ),
        milters=prepared.milters,
    )
    qmgr = QmgrClient(runtime, pool(f"public/{params.queue_service_name}"), params.in_flow_delay)
    clients = _Clients(shared, qmgr, runtime.network)
    return Handlers(
        stream=exchanges(runtime, clients.serve, network=True),
        descriptors=True,
        drain=clients.forget_all,
    )


class _Clients:
    """The sessions of clients, and the files that are there for their next messages."""

    def __init__(self, shared: Shared, qmgr: QmgrClient, network: frozenset[int]) -> None:
        """network: users whose messages are no notifications of ours."""
        self._shared = shared
        self._network = network
        self._qmgr = qmgr
        self._space = _FreeSpace(shared.params.queue_minfree)
        self._ready: dict[Connection, QueueFileWriter] = {}

    async def serve(self, connection: Connection) -> None:
        """One message after the other."""
        forbidden = _UNLIMITED if connection.is_from(self._network) else 0
        try:
            while True:
                first = await connection.receive()
                flags, another = _begun(first, known=connection in self._ready)
                flags &= ~forbidden
                try:
                    writer = self._ready.pop(connection, None) or new_file(self._shared)
                    message = Message(self._shared, flags, writer)
                except OSError as err:
                    LOG.warning(f"create file incoming: {err.strerror}")
                    return  # to the client, the service is not available now
                try:
                    if another:
                        message.meanwhile = partial(self._prepare, connection)
                    await self._message(connection, message, first)
                finally:
                    message.discard()
        finally:
            _forget(self._ready.pop(connection, None))

    def _prepare(self, connection: Connection) -> QueueId:
        """Make the file for the next message of a client; "" if that fails."""
        try:
            writer = self._ready[connection] = new_file(self._shared)
        except OSError:
            return QueueId("")  # the next message will meet it, and say so
        return writer.queue_id

    async def _message(self, connection: Connection, message: Message, first: object) -> None:
        if not self._space.enough():
            message.refuse(no_space())
        match first:
            case Envelope():
                await message.envelope(first)
            case CleanupOpen():
                connection.send(CleanupOpened(message.queue_id))
            case _:
                return
        result = await _exchange(connection, message, self._qmgr)
        if result is not None:
            connection.send(result)

    async def forget_all(self) -> None:
        """At the end of the process."""
        for writer in self._ready.values():
            _forget(writer)


def _begun(first: object, *, known: bool) -> tuple[int, bool]:
    """The CleanupFlag bits of a message that begins so, and whether another one may follow.

    known: its client knows the queue id. Raises WireError.
    """
    match first:
        case Envelope() if known:
            return first.cleanup_flags, True
        case CleanupOpen(flags, another):
            return flags, another
        case CleanupAbort() if known:
            return 0, False
    raise WireError(f"a message that begins with {type(first).__name__}")


async def _exchange(
    connection: Connection, message: Message, qmgr: QmgrClient
) -> CleanupResult | None:
    """One message, to its result, which is to be sent; None: the client has dropped it."""
    while True:
        if (unit := connection.received()) is None:  # most often all is there
            unit = await connection.receive()
        match unit:
            case Chunk(data) if data:
                await message.content(data)
            case Chunk():
                result = await message.finish()
                if message.queued:
                    qmgr.new_mail(message.queue_id)
                    if qmgr.slow:
                        await qmgr.throttle()
                return result
            case Envelope():
                await message.envelope(unit)
            case Recipients(recipients):
                message.recipients(recipients)
            case CleanupAmend():
                await message.amend(unit)
            case MilterState():
                message.links.append(_milter(connection, unit))
            case CleanupAbort():
                return None
            case _:
                raise WireError(f"unexpected {type(unit).__name__}")


def _forget(writer: QueueFileWriter | None) -> None:
    """Remove the file for a message that does not come."""
    if writer is None:
        return
    try:
        writer.discard()
    except OSError as err:
        LOG.warning(f"{writer.queue_id}: remove queue file: {err.strerror}")


def _milter(connection: Connection, state: MilterState) -> MilterLink:
    """Go on with a Milter of smtpd(8). Raises WireError."""
    if not state.connected:
        return MilterLink.resumed(state, None)
    (fd,) = connection.take_descriptors(1)
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise WireError(f"not a connection to a Milter: {error.strerror}") from None
    return MilterLink.resumed(state, sock)


class _FreeSpace:
    """queue_minfree: whether the queue file system has room; 0 does not ask."""

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum
        self._enough = True
        self._checked = -_SPACE_CHECK

    def enough(self) -> bool:
        """Whether a message may be taken."""
        if not self._minimum:
            return True
        now = time.monotonic()
        if now - self._checked >= _SPACE_CHECK:
            self._checked = now
            status = os.statvfs("incoming")
            self._enough = status.f_bavail * status.f_frsize >= self._minimum
        return self._enough


SERVICE: Final = Service("cleanup", prepare, start)
