"""Forwarding: what aliases and .forward files send elsewhere leaves as a new message."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from daemons.local.outcomes import deferred
from daemons.local.params import Settings
from daemons.local.stage import Stage
from libmail.agents.delivery import Delivery, Outcome, Sent
from libmail.clients.cleanup import CleanupClient
from libmail.ipc.codec import WireError
from libmail.ipc.messages import CleanupFlag, Envelope, EnvelopeFlag, QueueId, Recipient
from libmail.log import LOG
from libmail.message.dates import rfc5322_date
from libmail.queue.file import QueueFile
from libmail.service.pool import ServiceUnavailable
from libmail.text.quoting import header_address

__all__ = ["Forwarder"]

_KEPT: Final = (
    EnvelopeFlag.SMTPUTF8
    | EnvelopeFlag.EIGHTBIT
    | EnvelopeFlag.VERBOSE
    | EnvelopeFlag.DSN_HEADERS
    | EnvelopeFlag.DSN_FULL
    | EnvelopeFlag.REQUIRETLS
    | EnvelopeFlag.TLS_OPTIONAL
)


@dataclass(slots=True)
class _NewMessage:
    sender: str
    delivered_to: str
    recipients: list[Recipient] = field(default_factory=list)


class Forwarder:
    """Collects where a message is forwarded to; one new message for each sender."""

    def __init__(self, settings: Settings, cleanup: CleanupClient) -> None:
        self._settings = settings
        self._cleanup = cleanup
        self._messages: dict[tuple[str, str], _NewMessage] = {}

    def add(self, stage: Stage) -> None:
        """Forward to the address of the stage."""
        key = (stage.sender, stage.delivered_to)
        message = self._messages.get(key)
        if message is None:
            message = _NewMessage(*key)
            self._messages[key] = message
        message.recipients.append(stage.recipient._replace(offset=0))

    async def send(self, delivery: Delivery) -> list[Outcome]:
        """Submit the new messages: an outcome each."""
        return [await self._send_one(delivery, message) for message in self._messages.values()]

    async def _send_one(self, delivery: Delivery, message: _NewMessage) -> Outcome:
        try:
            queue_id = await self._submit(delivery, message)
        except (ServiceUnavailable, WireError) as err:
            LOG.warning(f"{delivery.request.queue_id}: {err}")
            return deferred("unable to forward message")
        return Sent(dsn="2.0.0", reason=f"forwarded as {queue_id}", relay="local", action="relayed")

    async def _submit(self, delivery: Delivery, message: _NewMessage) -> QueueId:
        """The queue id. Raises ServiceUnavailable, also for a refusal, and WireError."""
        submission = await self._cleanup.open(CleanupFlag.MAP)
        try:
            submission.envelope(self._envelope(delivery, message), message.recipients)
            await submission.write(self._head(submission.queue_id, message))
            for piece in _content(delivery.file):
                await submission.write(piece)
            result = await submission.finish()
        except BaseException:
            submission.abort()
            raise
        if result.status:
            raise ServiceUnavailable(f"cleanup: status {result.status} {result.reason}")
        return result.queue_id

    def _envelope(self, delivery: Delivery, message: _NewMessage) -> Envelope:
        envelope = delivery.file.envelope()
        listed = message.sender != envelope.sender  # the owner did not ask what happens
        return envelope._replace(
            sender=message.sender,
            flags=envelope.flags & (_KEPT & ~EnvelopeFlag.VERBOSE if listed else _KEPT),
            cleanup_flags=int(CleanupFlag.MAP),
            arrival=time.time(),
            full_name="",
            content_filter="",
            redirect="",
            verp_delims="",
            message_id="",
            warn_time=0.0,
        )

    def _head(self, queue_id: QueueId, message: _NewMessage) -> bytes:
        params = self._settings.params
        head = (
            f"Received: by {params.myhostname} ({params.mail_name})\r\n"
            f"\tid {queue_id}; {rfc5322_date(time.time())}\r\n"
        )
        if "forward" in params.prepend_delivered_header:
            head += f"Delivered-To: {header_address(message.delivered_to)}\r\n"
        return head.encode("utf-8", "surrogateescape")


def _content(file: QueueFile) -> Iterator[bytes]:
    small = file.small_content()
    if small is not None:
        yield small
        return
    yield file.header()
    yield from file.body()
