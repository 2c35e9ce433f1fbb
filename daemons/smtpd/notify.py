"""The report to the postmaster about a session in which something went wrong, notify_classes."""

import textwrap
from collections.abc import Sequence
from typing import Final, Literal

from daemons.smtpd.transaction import MailClient
from libmail.ipc.messages import CleanupFlag, Envelope, EnvelopeFlag, Recipient
from libmail.log import LOG
from libmail.service.pool import ServiceUnavailable

__all__ = ["Transcript", "notify", "transcript_text"]

Transcript = Sequence[tuple[Literal["In", "Out"], bytes]]
_WIDTH: Final = 79


def transcript_text(transcript: Transcript) -> str:
    """The lines of a session, folded."""
    lines: list[str] = []
    for direction, data in transcript:
        head = f" {direction}:".ljust(6)
        for line in data.decode("utf-8", "replace").rstrip("\r\n").split("\r\n"):
            text = "".join([char if char.isprintable() else "?" for char in line])
            lines += textwrap.wrap(
                head + text,
                _WIDTH,
                subsequent_indent="     ",
                drop_whitespace=True,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\r\n".join(lines)


async def notify(
    cleanup: MailClient,
    *,
    sender: str,
    recipient: str,
    client: str,
    hostname: str,
    mail_name: str,
    date: str,
    arrival: float,
    transcript: Transcript,
    named: str,
    reason: str,
) -> None:
    """Send the report; one that cannot be sent is logged and forgotten.

    named: the recipient in the header. reason: why the session was ended, "" if it was not.
    """
    try:
        submission = await cleanup.open(CleanupFlag.FILTER | CleanupFlag.MAP)
        envelope = Envelope(sender=sender, arrival=arrival, flags=EnvelopeFlag.LOCAL)
        submission.envelope(envelope, [Recipient(recipient, recipient)])
        queue_id = submission.queue_id
        head = (
            f"Received: by {hostname} ({mail_name})\r\n\tid {queue_id}; {date}\r\n"
            f"Date: {date}\r\n"
            f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n"
            f"To: Postmaster <{named}>\r\n"
            f"Subject: {mail_name} SMTP server: errors from {client}\r\n\r\n"
            "Transcript of session follows.\r\n\r\n"
        )
        aborted = f"Session aborted, reason: {reason}\r\n" if reason else ""
        tail = f"\r\n\r\n{aborted}\r\nFor other details, see the local mail logfile\r\n"
        text = head + transcript_text(transcript) + tail
        await submission.write(text.encode("utf-8", "replace"))
        await submission.finish()
    except ServiceUnavailable as err:
        LOG.warning(f"postmaster notify: {err}")
