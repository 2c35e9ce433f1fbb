"""Sessions that have begun with postscreen(8), by postscreen_deep_handover.

postscreen has answered the greeting, HELO or EHLO, and MAIL, each with a 2xx code, and hands the
client over when it names its first recipient. What restrictions, Milters and limits here say of
these commands the client learns with the answers to its recipients, as with smtpd_delay_reject.
"""

from typing import TYPE_CHECKING

from daemons.smtpd.answer import CLOSING, SessionEnded
from libmail.smtp.server import Command

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["resume"]


async def resume(session: "Session") -> None:
    """Carry out what the client has said before. The last line is next in turn.

    Raises SessionEnded, where a command is refused with the end of the session.
    """
    *answered, last = [line.encode("utf-8", "surrogateescape") for line in session.said]
    for line in answered:
        if session.overdue is not None:
            break
        found = await session.answer_to(Command(line, False))
        if found.reply.code in CLOSING:
            await session.send(found.reply)
            raise SessionEnded
        if found.error:
            session.overdue = found
    session.dialogue.core.receive_data(last + b"\r\n")
