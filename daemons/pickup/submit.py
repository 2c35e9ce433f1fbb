"""A local submission on its way to cleanup(8), whether by socket or from maildrop."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from daemons.pickup.events import Pickup
from daemons.pickup.params import Prepared
from libmail.clients.cleanup import CleanupClient, without_overridden
from libmail.ipc.batches import octets
from libmail.ipc.codec import Chunk, WireError
from libmail.ipc.messages import (
    CleanupFlag,
    CleanupResult,
    CleanupStatus,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
    Recipients,
    SubmitOpen,
    SubmitOpened,
    SubmitResult,
)
from libmail.log import LOG
from libmail.message.dates import rfc5322_date
from libmail.message.verp import usable_delimiters
from libmail.service.connection import Connection
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.address import MAX_ADDRESS, address_fault
from libmail.tables.table import TableRetry

__all__ = ["EX_OK", "EX_TEMPFAIL", "MAX_RECIPIENTS", "Origin", "Submitter", "mended", "too_big"]

MAX_RECIPIENTS: Final = 1_000_000
_MAX_HELD: Final = 1 << 28  # octets of recipients, of one user
_OVERHEAD: Final = 200  # octets of memory for a recipient, besides its text
_MAX_ENVID: Final = 256
_MAX_ORCPT: Final = 3 * MAX_ADDRESS
_ALL_NOTIFY: Final = 15
_TOO_MUCH: Final = "too many submissions at the same time"
_SUBMISSIONS: Final = 100  # of one user at a time
_ALWAYS: Final = CleanupFlag.BOUNCE | CleanupFlag.FILTER | CleanupFlag.BCC | CleanupFlag.MAP
_AUTODETECT: Final = frozenset({"sendmail", "all"})  # in smtputf8_autodetect_classes
_USER_FLAGS: Final = (
    EnvelopeFlag.SMTPUTF8
    | EnvelopeFlag.EIGHTBIT
    | EnvelopeFlag.VERIFY_ONLY
    | EnvelopeFlag.VERBOSE
    | EnvelopeFlag.DSN_HEADERS
    | EnvelopeFlag.DSN_FULL
    | EnvelopeFlag.REQUIRETLS
)
EX_OK: Final = 0
EX_DATAERR: Final = 65
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77

_REFUSALS: Final = {
    CleanupStatus.BAD: "internal protocol error",
    CleanupStatus.WRITE: "queue file write error",
    CleanupStatus.SIZE: "message file too big",
    CleanupStatus.CONTENT: "message content rejected",
    CleanupStatus.HOPS: "too many hops",
    CleanupStatus.RECIPIENTS: "no recipients specified",
    CleanupStatus.DEFER: "service unavailable",
    CleanupStatus.SPACE: "insufficient system storage",
}
_PERMANENT: Final = (
    CleanupStatus.SIZE | CleanupStatus.CONTENT | CleanupStatus.HOPS | CleanupStatus.RECIPIENTS
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a submission comes from. orig_id: the queue id that it had before a requeue, or ""."""

    uid: int
    orig_id: str = ""


class _Refused(Exception):
    """The rest of a submission is of no interest."""

    def __init__(self, result: SubmitResult) -> None:
        super().__init__(result)
        self.result = result


class TooBig(Exception):
    """A user's message is larger than message_size_limit."""


class Submitter:
    """Hands local mail to cleanup."""

    def __init__(self, prepared: Prepared, cleanup: CleanupClient) -> None:
        self._prepared = prepared
        self._params = prepared.params
        self._cleanup = cleanup
        self._submissions = Counter[int]()  # under way, by user
        self._held = Counter[int]()  # octets of their recipients, by user
        options = self._params.receive_override_options
        self.flags = int(without_overridden(_ALWAYS | CleanupFlag.MILTER, options))
        if _AUTODETECT & frozenset(self._params.smtputf8_autodetect_classes):
            self.flags |= CleanupFlag.SMTPUTF8_AUTODETECT

    async def receive(self, connection: Connection) -> object:
        """The next message or piece. Raises WireError for a client that takes too long."""
        message = connection.received()
        if message is not None:  # most often all has come in one piece
            return message
        try:
            async with asyncio.timeout(self._params.ipc_timeout):
                return await connection.receive()
        except TimeoutError:
            connection.abort()
            raise WireError("timeout") from None

    async def serve(self, connection: Connection, message: SubmitOpen) -> bool:
        """One submission over the socket, from its SubmitOpen on. Answers with SubmitResult.

        Returns whether another may follow: after a refusal the rest of the content is of no use.
        """
        uid = connection.credentials.uid
        self._submissions[uid] += 1
        try:
            result = await self._serve(connection, message, uid)
        finally:
            self._submissions[uid] -= 1
            if not self._submissions[uid]:
                del self._submissions[uid]
        connection.send(result)
        return not result.exit_status

    async def _serve(self, connection: Connection, message: SubmitOpen, uid: int) -> SubmitResult:
        refusal = await self._refusal(message, uid)
        if refusal is not None:
            return refusal
        connection.send(SubmitOpened())
        envelope = self.user_envelope(message, uid)
        if not message.sender and not message.null_sender:
            envelope = envelope._replace(sender=self._prepared.users.name_of(uid))
        held = _Held(self._held, uid)
        try:
            recipients, first = await self._receive_recipients(connection, held)
            content = self._content(connection, first)
            return await self.submit(Origin(uid), envelope, recipients, content)
        except _Refused as err:
            return err.result
        except TooBig:
            return too_big(envelope.sender, uid)
        except ServiceUnavailable as err:
            LOG.warning(f"mail submission: {err}")
            return SubmitResult(EX_TEMPFAIL, "mail system unavailable", QueueId(""))
        finally:
            held.release()

    async def _refusal(self, message: SubmitOpen, uid: int) -> SubmitResult | None:
        """Why a submission cannot be taken, before anything of it is."""
        sender = message.sender
        if not sender and not message.null_sender:
            sender = self._prepared.users.name_of(uid)
        try:
            allowed = await self._prepared.users.allows(uid)
            unlisted = await self._prepared.senders.refusal(uid, sender)
        except TableRetry as err:
            LOG.warning(str(err))
            return SubmitResult(EX_TEMPFAIL, "mail system unavailable", QueueId(""))
        if not allowed:
            return SubmitResult(EX_NOPERM, self._prepared.users.refusal_of(uid), QueueId(""))
        if unlisted:
            return SubmitResult(EX_NOPERM, unlisted, QueueId(""))
        if self._submissions[uid] > _SUBMISSIONS and uid:
            return SubmitResult(EX_TEMPFAIL, _TOO_MUCH, QueueId(""))
        limit = self._params.message_size_limit
        if limit and message.size > limit:
            return too_big(sender, uid)
        return None

    async def _receive_recipients(
        self, connection: Connection, held: "_Held"
    ) -> tuple[list[Recipient], bytes]:
        recipients: list[Recipient] = []
        while True:
            message = await self.receive(connection)
            if isinstance(message, Chunk):
                return recipients, message.data
            if not isinstance(message, Recipients):
                raise WireError(f"unexpected {type(message).__name__}")
            held.add(message.recipients)
            recipients += message.recipients

    async def _content(self, connection: Connection, first: bytes) -> AsyncIterator[bytes]:
        """Raises TooBig while the user can still be told, instead of a report by mail."""
        limit = self._params.message_size_limit
        size = 0
        piece = first
        while piece:
            size += len(piece)
            if limit and size > limit:
                raise TooBig
            yield piece
            message = await self.receive(connection)
            if not isinstance(message, Chunk):
                raise WireError(f"unexpected {type(message).__name__}")
            piece = message.data

    def user_envelope(self, said: Envelope | SubmitOpen, uid: int) -> Envelope:
        """The envelope of a user's message, with no more of what he said than he may say."""
        relayed = said.flags & EnvelopeFlag.RELAYED
        return Envelope(
            sender=said.sender,
            flags=said.flags & _USER_FLAGS | EnvelopeFlag.LOCAL,
            cleanup_flags=self.flags,
            arrival=time.time(),
            full_name=said.full_name,
            dsn_envid=said.dsn_envid,
            verp_delims=self._verp(said.verp_delims),
            rewrite_context=self._params.remote_header_rewrite_domain if relayed else "local",
            content_filter=self._params.content_filter,
        )

    def _verp(self, said: str) -> str:
        """Two delimiters if they may be some; sendmail has told its user otherwise."""
        return said if usable_delimiters(said, self._params.verp_delimiter_filter) else ""

    @staticmethod
    def fault(envelope: Envelope, recipients: Sequence[Recipient]) -> str:
        """Why no mail system takes this message, "" if it may be taken."""
        if not envelope.dsn_envid.isprintable() or len(envelope.dsn_envid) > _MAX_ENVID:
            return "bad envelope id"
        if len(envelope.full_name) > MAX_ADDRESS:
            return "full name too long"
        fault = address_fault(envelope.sender)
        if fault:
            return fault
        for address, orig_rcpt, dsn_orcpt, notify, _ in recipients:
            fault = address_fault(address)
            if not fault and orig_rcpt != address:
                fault = address_fault(orig_rcpt)
            if fault:
                return fault
            if len(dsn_orcpt) > _MAX_ORCPT or not dsn_orcpt.isprintable():
                return "bad original recipient"
            if not 0 <= notify <= _ALL_NOTIFY:
                return "bad notification request"
        return ""

    async def submit(
        self,
        origin: Origin,
        envelope: Envelope,
        recipients: Sequence[Recipient],
        content: AsyncIterator[bytes],
    ) -> SubmitResult:
        """Hand a message to cleanup. With exit status 0 it is in the queue.

        Raises ServiceUnavailable, and what reading the content raises.
        """
        fault = self.fault(envelope, recipients)
        if fault:
            LOG.info(f"uid={origin.uid}: message refused: {fault}")
            return SubmitResult(EX_DATAERR, fault, QueueId(""))
        submission = await self._cleanup.open(self.flags)
        queue_id = submission.queue_id
        LOG.event(Pickup(queue_id, origin.uid, envelope.sender, origin.orig_id))
        try:
            submission.envelope(envelope, recipients)
            await submission.write(self._received(queue_id, origin.uid))
            async for piece in mended(content):
                await submission.write(piece)
            result = await submission.finish()
        except BaseException:
            submission.abort()
            raise
        return _submit_result(result)

    def _received(self, queue_id: QueueId, uid: int) -> bytes:
        """The Received: header of local mail (RFC 5321 §4.4)."""
        params = self._params
        return (
            f"Received: by {params.myhostname} ({params.mail_name}, from userid {uid})\r\n"
            f"\tid {queue_id}; {rfc5322_date(time.time())}\r\n"
        ).encode("utf-8", "surrogateescape")


class _Held:
    """What the recipients of one submission occupy, of what all those of a user may."""

    def __init__(self, users: Counter[int], uid: int) -> None:
        self._users = users
        self._uid = uid
        self._octets = 0

    def add(self, recipients: Sequence[Recipient]) -> None:
        """Raises _Refused."""
        size = sum([octets(one) + _OVERHEAD for one in recipients])
        self._octets += size
        self._users[self._uid] += size
        if self._octets > _MAX_HELD:
            raise _Refused(SubmitResult(EX_DATAERR, "too many recipients", QueueId("")))
        if self._users[self._uid] > _MAX_HELD and self._uid:
            raise _Refused(SubmitResult(EX_TEMPFAIL, _TOO_MUCH, QueueId("")))

    def release(self) -> None:
        """The submission is over."""
        self._users[self._uid] -= self._octets
        if not self._users[self._uid]:
            del self._users[self._uid]


def too_big(sender: str, uid: int) -> SubmitResult:
    """The refusal of a message that is larger than message_size_limit, and what is logged then."""
    with LOG.instead_of("postdrop"):
        LOG.warning(f"uid={uid}: File too large")
    return SubmitResult(EX_NOPERM, f"{sender}({uid}): message file too big", QueueId(""))


async def mended(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """White space at the start would continue our Received header; it begins the body instead."""
    first = True
    async for piece in content:
        if first and piece.startswith((b" ", b"\t")):
            piece = b"\r\n" + piece
        first = first and not piece
        yield piece


def _submit_result(result: CleanupResult) -> SubmitResult:
    if not result.status:
        return SubmitResult(EX_OK, "", result.queue_id)
    status = CleanupStatus(result.status)
    reason = result.reason or next(
        (text for bit, text in _REFUSALS.items() if bit & status), "unknown error"
    )
    permanent = status & _PERMANENT and not status & CleanupStatus.DEFER
    return SubmitResult(EX_DATAERR if permanent else EX_TEMPFAIL, reason, result.queue_id)
