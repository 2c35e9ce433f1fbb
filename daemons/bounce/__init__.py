"""bounce(8), defer(8), trace(8): remember what happened to recipients, and report it.

called by: delivery agents, qmgr, cleanup. asks: nobody. writes: bounce/, defer/, trace/. tells:
cleanup (notifications), flush (what was deferred for a site). needs: mail_owner, the queue.

One program under three service names, each with a log directory of that name.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Final

from daemons.bounce.notify import (
    DELAY,
    FAILURE,
    SUCCESS,
    VERIFY,
    Job,
    Notifier,
    read_original,
    redacted,
)
from daemons.bounce.params import BounceParams, Prepared, prepare
from libmail.clients.cleanup import CleanupClient
from libmail.clients.flush import FlushClient
from libmail.files.commit import GroupCommit
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    BounceAppend,
    BounceFlush,
    BounceReply,
    CleanupStatus,
    DsnNotify,
    EnvelopeFlag,
    QueueId,
    Target,
)
from libmail.log import LOG
from libmail.message.verp import verp_sender
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileCorrupt
from libmail.queue.ids import is_queue_id
from libmail.queue.reasons import ReasonLog
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.service.skeleton import Handlers, Runtime, Service

__all__ = ["SERVICE", "BounceParams"]

_DONE: Final = BounceReply(0, "")
_NO_RECORD: Final = "message could not be delivered in time; there is no record of the reason"
_LOGS: Final = ("bounce", "defer", "trace")


def _wanted(targets: list[Target], bit: DsnNotify, default: bool) -> list[Target]:
    """Recipients whose NOTIFY asks for this kind of report (RFC 3461 §4.1)."""
    return [t for t in targets if (bool(t.notify & bit) if t.notify else default)]


class Reporter:
    """Answers requests for one of the three services.

    fsync: returns when a file is on disk, or raises OSError. network: users who may only add.
    """

    def __init__(
        self,
        prepared: Prepared,
        service: str,
        notifier: Notifier,
        fsync: Callable[[int], Awaitable[None]],
        network: frozenset[int] = frozenset(),
    ) -> None:
        params = prepared.params
        self._params = params
        self._prepared = prepared
        self._notifier = notifier
        self._network = network
        self._queue = QueueDirectory(frozenset(params.hash_queue_names), params.hash_queue_depth)
        self._name = service if service in _LOGS else "bounce"
        self._log = ReasonLog(self._queue, self._name)
        self._fsync = fsync
        self._flush_service = FlushClient(prepared.flush_params, prepared.flush_domains)

    async def serve(self, connection: Connection) -> None:
        """Exchanges on one connection."""
        while True:
            request = await connection.receive()
            if isinstance(request, BounceAppend):
                reply = await self._append(request)
                if self._name == "defer" and not reply.status:
                    addresses = [target.address for target in request.targets]
                    await self._flush_service.deferred(request.queue_id, addresses)
                connection.send(reply)
            elif isinstance(request, BounceFlush) and not connection.is_from(self._network):
                connection.send(await self._flush(request))
            else:
                raise WireError(f"unexpected {type(request).__name__}")

    async def _append(self, request: BounceAppend) -> BounceReply:
        if not is_queue_id(request.queue_id):
            return BounceReply(CleanupStatus.BAD, "bad queue id")
        try:
            fd = self._log.append(request.queue_id, request.targets)
            try:
                if self._name != "defer":
                    await self._fsync(fd)
            finally:
                os.close(fd)
        except OSError as err:
            LOG.warning(f"{request.queue_id}: append to {self._name} log: {err.strerror}")
            return BounceReply(CleanupStatus.WRITE, err.strerror or "write error")
        return _DONE

    async def _flush(self, request: BounceFlush) -> BounceReply:
        if not is_queue_id(request.queue_id):
            return BounceReply(CleanupStatus.BAD, "bad queue id")
        try:
            targets = list(request.targets) or self._log.read(request.queue_id)
            if request.kind == "bounce" and self._name == "defer":
                targets += self._unrecorded(request, targets)
            status = await self._report(request, targets)
        except (OSError, QueueFileCorrupt, ServiceUnavailable) as err:
            LOG.warning(f"{request.queue_id}: cannot send notification: {err}")
            return BounceReply(CleanupStatus.DEFER, str(err))
        if status:
            LOG.warning(f"{request.queue_id}: cannot send notification: cleanup status {status}")
            return BounceReply(status, "notification was not accepted")
        if request.kind in ("bounce", "trace"):
            self._forget(request.queue_id)
        return _DONE

    def _unrecorded(self, request: BounceFlush, targets: list[Target]) -> list[Target]:
        """The recipients that are given up now, though no record tells why.

        It could not be written, or was lost in a crash: the sender has to know all the same.
        Raises OSError, QueueFileCorrupt.
        """
        known = {target.offset for target in targets}
        with QueueFile(self._queue.path(request.queue_name, request.queue_id)) as file:
            return [
                Target(
                    address=one.address,
                    orig_rcpt=one.orig_rcpt,
                    dsn_orcpt=one.dsn_orcpt,
                    notify=one.notify,
                    offset=one.offset,
                    action="failed",
                    status="4.4.7",
                    reason=_NO_RECORD,
                )
                for one in file.recipients()
                if one.offset not in known
            ]

    def _forget(self, queue_id: QueueId) -> None:
        """The log has been told of. It must not be told of again, whatever keeps it there."""
        try:
            self._log.remove(queue_id)
        except OSError as err:
            LOG.warning(f"{queue_id}: remove {self._name} log: {err.strerror}")
            try:
                self._log.clear(queue_id)
            except OSError as second:
                LOG.warning(f"{queue_id}: truncate {self._name} log: {second.strerror}")

    async def _report(self, request: BounceFlush, targets: list[Target]) -> int:
        """Send what is to be sent. Returns 0 or a CleanupStatus."""
        if self._params.requiretls_redact_dsn:
            request = redacted(request)
        if request.kind == "warn":
            return await self._delay(request, targets)
        if request.kind == "trace":
            return await self._trace(request, targets)
        return await self._failures(request, targets)

    async def _failures(self, request: BounceFlush, targets: list[Target]) -> int:
        """One report for all recipients; with VERP one for each, to a sender that names it."""
        delimiters = request.verp_delims
        if not delimiters or self._params.disable_verp_bounces:
            return await self._failure(request, targets, request.sender)
        for target in targets:
            whom = verp_sender(request.sender, delimiters, target.orig_rcpt or target.address)
            status = await self._failure(request, [target], whom)
            if status:
                return status
        return 0

    async def _failure(self, request: BounceFlush, targets: list[Target], return_to: str) -> int:
        """To the sender if he wants it; what the postmaster is told does not depend on that."""
        params, notifier = self._params, self._notifier
        if not targets:
            return 0
        if request.sender.lower() == notifier.double_bounce_sender.lower():
            LOG.warning(f"{request.queue_id}: undeliverable postmaster notification discarded")
            return 0
        path = self._queue.path(request.queue_name, request.queue_id)
        if not request.sender:
            if not {"bounce", "2bounce"}.intersection(params.notify_classes):
                return 0
            original = read_original(request, path, params.bounce_size_limit, full=True)
            recipient = self._prepared.double_notice_recipient
            return await notifier.to_postmaster(FAILURE, original, targets, recipient)
        wanted = _wanted(targets, DsnNotify.FAILURE, True)
        if wanted:
            original = read_original(request, path, params.bounce_size_limit, full=True)
            status = await notifier.to_sender(FAILURE, original, wanted, return_to)
            if status:
                return status
        else:
            original = read_original(request, path, params.bounce_size_limit, full=False)
            await notifier.to_nobody(FAILURE, original)
        if "bounce" not in params.notify_classes:
            return 0
        copy = read_original(request, path, params.bounce_size_limit, full=False)
        return await notifier.to_postmaster(FAILURE, copy, targets, params.bounce_notice_recipient)

    async def _delay(self, request: BounceFlush, targets: list[Target]) -> int:
        params, notifier = self._params, self._notifier
        if not targets or request.sender.lower() in ("", notifier.double_bounce_sender.lower()):
            return 0
        path = self._queue.path(request.queue_name, request.queue_id)
        original = read_original(request, path, params.bounce_size_limit, full=False)
        wanted = _wanted(targets, DsnNotify.DELAY, True)
        if wanted:
            status = await notifier.to_sender(DELAY, original, wanted, request.sender)
            if status:
                return status
        else:
            await notifier.to_nobody(DELAY, original)
        if "delay" not in params.notify_classes:
            return 0
        return await notifier.to_postmaster(DELAY, original, targets, params.delay_notice_recipient)

    async def _trace(self, request: BounceFlush, targets: list[Target]) -> int:
        asked = request.envelope_flags & (EnvelopeFlag.VERIFY_ONLY | EnvelopeFlag.VERBOSE)
        job: Job = VERIFY if asked else SUCCESS
        if not asked:
            targets = _wanted(targets, DsnNotify.SUCCESS, False)
        if not targets:
            return 0
        nobody = "single-bounce" if not request.sender else ""
        if request.sender.lower() == self._notifier.double_bounce_sender.lower():
            nobody = "double-bounce"
        if nobody:
            LOG.info(
                f"{request.queue_id}: not sending trace/success notification for {nobody} message"
            )
            return 0
        path = self._queue.path(request.queue_name, request.queue_id)
        original = read_original(request, path, self._params.bounce_size_limit, full=False)
        return await self._notifier.to_sender(job, original, targets, request.sender)


async def _start(prepared: Prepared, runtime: Runtime) -> Handlers:
    params = prepared.params
    pool = ServicePool(f"public/{params.cleanup_service_name}", timeout=params.ipc_timeout)
    notifier = Notifier(prepared, CleanupClient(pool, timeout=params.ipc_timeout))
    fsync = GroupCommit().fsync
    reporter = Reporter(prepared, runtime.service, notifier, fsync, runtime.network)
    return Handlers(stream=exchanges(runtime, reporter.serve, network=True))


SERVICE: Final = Service("bounce", prepare, _start)
