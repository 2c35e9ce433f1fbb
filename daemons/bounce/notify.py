"""Sending notifications: to the sender, and copies to the postmaster."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from daemons.bounce.events import NotificationSent
from daemons.bounce.params import Prepared
from libmail.clients.cleanup import CleanupClient
from libmail.dsn.report import Notice, Original, compose
from libmail.dsn.templates import Template
from libmail.ipc.messages import (
    BounceFlush,
    CleanupFlag,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
    Target,
)
from libmail.log import LOG
from libmail.queue.file import ContentFlag, QueueFile

__all__ = ["Job", "Notifier", "read_original", "redacted"]

_EIGHTBIT: Final = ContentFlag.EIGHTBIT_HEADER | ContentFlag.EIGHTBIT_BODY
_MESSAGE_ID: Final = re.compile(rb"^message-id[ \t]*:((?:[^\r\n]|\r?\n[ \t]){0,900})", re.I | re.M)


@dataclass(frozen=True, slots=True)
class Job:
    """What kind of notification. name: of the template; log: the words of the log line."""

    name: str
    log: str
    action: str
    returned: str


FAILURE: Final = Job("failure", "non-delivery", "failed", "Undelivered Message")
DELAY: Final = Job("delay", "delay", "delayed", "Undelivered Message")
SUCCESS: Final = Job("success", "delivery status", "", "Message")
VERIFY: Final = Job("verify", "delivery status", "", "Message")


def read_original(request: BounceFlush, path: str, size_limit: int, *, full: bool) -> Original:
    """The message, with as much of its content as a report may return.

    A report to somebody else (kind "one") names the sender all the same, but not his envelope id.
    full: the body too, unless the sender asked for headers (RET=HDRS) or it is too large. Raises
    OSError, QueueFileCorrupt.
    """
    with QueueFile(path) as file:
        preamble = file.preamble
        elsewhere = request.kind == "one"
        whole = (
            full
            and not request.envelope_flags & EnvelopeFlag.DSN_HEADERS
            and (not size_limit or preamble.size <= size_limit)
        )
        return Original(
            request.queue_id,
            file.envelope().sender if elsewhere else request.sender,
            preamble.arrival,
            "" if elsewhere else request.dsn_envid,
            bool(request.envelope_flags & EnvelopeFlag.SMTPUTF8),
            bool(preamble.flags & _EIGHTBIT),
            file.header(),
            b"".join(file.body()) if whole else None,
            bool(request.envelope_flags & EnvelopeFlag.TLS_OPTIONAL),
            bool(request.envelope_flags & EnvelopeFlag.REQUIRETLS),
        )


def redacted(request: BounceFlush) -> BounceFlush:
    """Without the body of a message that requires TLS: its report does not (RFC 8689 §5)."""
    flags = request.envelope_flags
    if not flags & EnvelopeFlag.REQUIRETLS:
        return request
    return request._replace(
        envelope_flags=flags & ~EnvelopeFlag.REQUIRETLS | EnvelopeFlag.DSN_HEADERS
    )


class Notifier:
    """Composes notifications and submits them. `send` raises ServiceUnavailable."""

    def __init__(self, prepared: Prepared, cleanup: CleanupClient) -> None:
        self._prepared = prepared
        self._params = prepared.params
        self._cleanup = cleanup
        flags = CleanupFlag.MAP | CleanupFlag.UNLIMITED
        if "bounce" in self._params.internal_mail_filter_classes:
            flags |= CleanupFlag.FILTER
        self._flags = int(flags)
        self.double_bounce_sender = f"{self._params.double_bounce_sender}@{self._params.myhostname}"

    def template(self, job: Job) -> Template:
        """The template of a kind of notification."""
        return self._prepared.templates.of(job.name)

    async def to_sender(
        self, job: Job, original: Original, targets: Sequence[Target], recipient: str
    ) -> int:
        """Tell the sender, or who stands for him. Returns 0 or a CleanupStatus."""
        return await self._send(
            job, original, targets, "", recipient, self.template(job).subject,
            text=self._prepared.texts[job.name], automatic="auto-replied", who="sender",
        )  # fmt: skip

    async def to_postmaster(
        self, job: Job, original: Original, targets: Sequence[Target], recipient: str
    ) -> int:
        """Tell the postmaster; the envelope sender shows that nobody is to be told of failure."""
        return await self._send(
            job, original, targets, self.double_bounce_sender, recipient,
            self.template(job).postmaster_subject,
            text="", automatic="auto-generated", who="postmaster",
        )  # fmt: skip

    async def to_nobody(self, job: Job, original: Original) -> None:
        """Begin a report and drop it: log analysers know the lines that are logged then."""
        submission = await self._cleanup.open(self._flags)
        try:
            LOG.event(NotificationSent(original.queue_id, "sender", job.log, submission.queue_id))
            notice = self._notice(
                job, original, "", self.template(job).subject, "", "auto-replied",
                submission.queue_id,
            )  # fmt: skip
            submission.envelope(self._envelope("", original), ())
            await submission.write(compose(notice, original, ()))
        finally:
            submission.abort()

    async def _send(
        self,
        job: Job,
        original: Original,
        targets: Sequence[Target],
        sender: str,
        recipient: str,
        subject: str,
        *,
        text: str,
        automatic: str,
        who: str,
    ) -> int:
        submission = await self._cleanup.open(self._flags)
        try:
            notice = self._notice(
                job, original, recipient, subject, text, automatic, submission.queue_id
            )
            LOG.event(NotificationSent(original.queue_id, who, job.log, submission.queue_id))
            submission.envelope(
                self._envelope(sender, original),
                [Recipient(recipient, recipient)],
            )
            await submission.write(compose(notice, original, targets))
            result = await submission.finish()
        except BaseException:
            submission.abort()
            raise
        return result.status

    def _envelope(self, sender: str, original: Original) -> Envelope:
        return Envelope(
            sender=sender,
            flags=EnvelopeFlag.LOCAL
            | (EnvelopeFlag.SMTPUTF8 if original.utf8 else 0)
            | (EnvelopeFlag.REQUIRETLS if original.requires_tls else 0),
            cleanup_flags=self._flags,
            arrival=time.time(),
            rewrite_context="local",
        )

    def _notice(
        self,
        job: Job,
        original: Original,
        recipient: str,
        subject: str,
        text: str,
        automatic: str,
        queue_id: QueueId,
    ) -> Notice:
        params, template = self._params, self.template(job)
        retry = original.arrival + params.maximal_queue_lifetime if job is DELAY else 0.0
        return Notice(
            sender=template.sender,
            subject=subject,
            recipient=recipient,
            text=text,
            charset=_charset(template.charset, params.smtputf8_enable),
            eightbit=original.eightbit or params.smtputf8_enable,
            automatic=automatic,
            action=job.action,
            retry_until=retry,
            returned=job.returned,
            via=job in (SUCCESS, VERIFY),
            thread=_thread(original) if params.enable_threaded_bounces else "",
            now=time.time(),
            host=params.myhostname,
            mail_name=params.mail_name,
            queue_id=queue_id,
            origin=params.myorigin,
        )


def _charset(name: str, utf8: bool) -> str:
    """Without a charset of its own, the text may name addresses that are not ASCII."""
    return "utf-8" if utf8 and name.lower() == "us-ascii" else name


def _thread(original: Original) -> str:
    match = _MESSAGE_ID.search(original.header)
    if match is None:
        return ""
    value = b" ".join(match[1].split()).decode("utf-8", "replace")
    if value.startswith("<") and value.endswith(">"):
        return value
    LOG.warning(f"{original.queue_id}: ignoring malformed Message-ID")
    return ""
