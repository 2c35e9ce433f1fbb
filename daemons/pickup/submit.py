"""A local submission on its way to cleanup(8), whether by socket or from maildrop."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from daemons.pickup.params import Prepared
from libmail.clients.cleanup import CleanupClient
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
    SubmitResult,
)
from libmail.log import LOG
from libmail.log.events import Pickup
from libmail.message.dates import rfc5322_date
from libmail.message.verp import usable_delimiters
from libmail.milters import PASS, unfiltered
from libmail.service.authorization import user_name
from libmail.service.connection import Connection
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.reply import Reply

__all__ = ["EX_OK", "EX_TEMPFAIL", "MAX_RECIPIENTS", "Origin", "Submitter", "mended"]

MAX_RECIPIENTS: Final = 1_000_000
_SUBMISSIONS: Final = 100  # of one user at a time
_ALWAYS: Final = CleanupFlag.BOUNCE | CleanupFlag.FILTER | CleanupFlag.BCC | CleanupFlag.MAP
_OVERRIDES: Final = {
    "no_address_mappings": CleanupFlag.BCC | CleanupFlag.MAP,
    "no_header_body_checks": CleanupFlag.FILTER,
    "no_milters": CleanupFlag.MILTER,
}
_AUTODETECT: Final = frozenset({"sendmail", "all"})  # in smtputf8_autodetect_classes
_USER_FLAGS: Final = (
    EnvelopeFlag.SMTPUTF8
    | EnvelopeFlag.EIGHTBIT
    | EnvelopeFlag.VERIFY_ONLY
    | EnvelopeFlag.VERBOSE
    | EnvelopeFlag.DSN_HEADERS
    | EnvelopeFlag.DSN_FULL
)
EX_OK: Final = 0
EX_DATAERR: Final = 65
EX_TEMPFAIL: Final = 75

_UNAVAILABLE: Final = Reply(451, "4.7.1", "Service unavailable - try again later")
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


class TooBig(Exception):
    """A user's message is larger than message_size_limit."""


class Submitter:
    """Hands local mail to cleanup."""

    def __init__(self, prepared: Prepared, cleanup: CleanupClient) -> None:
        self._prepared = prepared
        self._params = prepared.params
        self._cleanup = cleanup
        self._submissions = Counter[int]()  # under way, by user
        self.flags = int(_ALWAYS | CleanupFlag.MILTER)
        for option in self._params.receive_override_options:
            self.flags &= ~_OVERRIDES.get(option, CleanupFlag(0))
        if _AUTODETECT & frozenset(self._params.smtputf8_autodetect_classes):
            self.flags |= CleanupFlag.SMTPUTF8_AUTODETECT
        self._unfiltered = PASS
        if self.flags & CleanupFlag.MILTER:
            params = self._params
            self._unfiltered = unfiltered(params.non_smtpd_milters, params.milter_default_action)
        if self._unfiltered.hold:
            self.flags |= CleanupFlag.HOLD

    async def receive(self, connection: Connection) -> object:
        """The next message or piece. Raises WireError for a client that takes too long."""
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
        recipients, first = await self._receive_recipients(connection)
        refusal = await self._prepared.users.refusal(uid)
        if not refusal and self._submissions[uid] > _SUBMISSIONS and uid:
            refusal = "too many submissions at the same time"
        if refusal:
            return SubmitResult(EX_TEMPFAIL, refusal, QueueId(""))
        envelope = self.user_envelope(message, uid)
        if not message.sender and not message.null_sender:
            envelope = envelope._replace(sender=user_name(uid))
        content = self._content(connection, first)
        try:
            return await self.submit(Origin(uid), envelope, recipients, content)
        except TooBig:
            reason = f"{envelope.sender}({uid}): message file too big"
            return SubmitResult(EX_TEMPFAIL, reason, QueueId(""))
        except ServiceUnavailable as err:
            LOG.warning(f"mail submission: {err}")
            return SubmitResult(EX_TEMPFAIL, "mail system unavailable", QueueId(""))

    async def _receive_recipients(self, connection: Connection) -> tuple[list[Recipient], bytes]:
        recipients: list[Recipient] = []
        while True:
            message = await self.receive(connection)
            if isinstance(message, Chunk):
                return recipients, message.data
            if not isinstance(message, Recipients):
                raise WireError(f"unexpected {type(message).__name__}")
            recipients += message.recipients
            if len(recipients) > MAX_RECIPIENTS:
                raise WireError("too many recipients")

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
        if self._unfiltered.reply is not None:
            return _unfiltered_result(self._unfiltered.reply)
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


async def mended(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """White space at the start would continue our Received header; it begins the body instead."""
    first = True
    async for piece in content:
        if first and piece.startswith((b" ", b"\t")):
            piece = b"\r\n" + piece
        first = first and not piece
        yield piece


def _unfiltered_result(reply: Reply) -> SubmitResult:
    """The refusal of mail that a Milter should see."""
    if reply.code == 421:
        reply = _UNAVAILABLE  # there is no connection to close
    reason = f"{reply.dsn} {reply.text}"
    LOG.info(f"milter-reject: {reason}")
    return SubmitResult(EX_DATAERR if reply.code >= 500 else EX_TEMPFAIL, reason, QueueId(""))


def _submit_result(result: CleanupResult) -> SubmitResult:
    if not result.status:
        return SubmitResult(EX_OK, "", result.queue_id)
    status = CleanupStatus(result.status)
    reason = result.reason or next(
        (text for bit, text in _REFUSALS.items() if bit & status), "unknown error"
    )
    permanent = status & _PERMANENT and not status & CleanupStatus.DEFER
    return SubmitResult(EX_DATAERR if permanent else EX_TEMPFAIL, reason, result.queue_id)
