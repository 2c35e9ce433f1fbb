"""Notices to the postmaster about a session in which something went wrong, `notify_classes`.

Called by: smtpd, smtp, lmtp. Asks: `public/cleanup`.
"""

import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from libmail.clients.cleanup import MailClient
from libmail.ipc.messages import CleanupFlag, Envelope, EnvelopeFlag, Recipient
from libmail.log import LOG
from libmail.message.dates import rfc5322_date
from libmail.service.pool import ServiceUnavailable
from libmail.text.printable import printable

__all__ = ["Direction", "NoticeParams", "Postmaster", "Transcript", "transcript_text"]

Direction: TypeAlias = Literal["In", "Out"]
Transcript: TypeAlias = Sequence[tuple[Direction, bytes]]
_WIDTH: Final = 79


@dataclass(frozen=True, slots=True)
class NoticeParams:
    """The parameters of programs that send notices."""

    double_bounce_sender: str
    error_notice_recipient: str
    header_from_format: str
    internal_mail_filter_classes: tuple[str, ...]
    mail_name: str
    myhostname: str
    notify_classes: tuple[str, ...]


def transcript_text(transcript: Transcript) -> str:
    """The lines of a session, folded."""
    lines: list[str] = []
    for direction, data in transcript:
        head = f" {direction}:".ljust(6)
        for line in data.decode("utf-8", "replace").rstrip("\r\n").split("\r\n"):
            lines += textwrap.wrap(
                head + printable(line),
                _WIDTH,
                subsequent_indent="     ",
                drop_whitespace=True,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\r\n".join(lines)


class Postmaster:
    """Sends notices to the postmaster."""

    def __init__(self, params: NoticeParams, cleanup: MailClient) -> None:
        self._params = params
        self._cleanup = cleanup
        self.sender = f"{params.double_bounce_sender}@{params.myhostname}"
        filtered = "notify" in params.internal_mail_filter_classes
        self._flags = int(CleanupFlag.MAP | (CleanupFlag.FILTER if filtered else 0))

    def wants(self, classes: Iterable[str]) -> bool:
        """Whether `notify_classes` has one of these."""
        return not set(classes).isdisjoint(self._params.notify_classes)

    async def tell(
        self,
        subject: str,
        transcript: Transcript,
        *,
        opening: str = "",
        ending: str = "",
        recipient: str = "",
    ) -> None:
        """Send a notice; one that cannot be sent is logged and forgotten.

        subject: what follows the name of the system. opening: a line above the transcript, ending:
        lines below it, with CRLF each. recipient: `error_notice_recipient` if "".
        """
        recipient = recipient or self._params.error_notice_recipient
        try:
            submission = await self._cleanup.open(self._flags)
            envelope = Envelope(sender=self.sender, arrival=time.time(), flags=EnvelopeFlag.LOCAL)
            submission.envelope(envelope, [Recipient(recipient, recipient)])
            text = (
                self._header(submission.queue_id, subject)
                + (f"{opening}\r\n\r\n" if opening else "")
                + f"Transcript of session follows.\r\n\r\n{transcript_text(transcript)}\r\n\r\n"
                + f"{ending}For other details, see the local mail logfile\r\n"
            )
            await submission.write(text.encode("utf-8", "replace"))
            await submission.finish()
        except ServiceUnavailable as err:
            LOG.warning(f"postmaster notify: {err}")

    def _header(self, queue_id: str, subject: str) -> str:
        params = self._params
        date = rfc5322_date(int(time.time()))
        return (
            f"Received: by {params.myhostname} ({params.mail_name})\r\n\tid {queue_id}; {date}\r\n"
            f"Date: {date}\r\n"
            f"From: {self._named('Mail Delivery System', f'MAILER-DAEMON@{params.myhostname}')}\r\n"
            f"To: {self._named('Postmaster', params.error_notice_recipient)}\r\n"
            f"Subject: {params.mail_name} {subject}\r\n\r\n"
        )

    def _named(self, name: str, address: str) -> str:
        if self._params.header_from_format == "obsolete":
            return f"{address} ({name})"
        return f"{name} <{address}>"
