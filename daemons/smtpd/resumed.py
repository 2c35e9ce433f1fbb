"""Sessions that have begun with postscreen(8), by postscreen_deep_handover.

postscreen has answered the greeting, HELO or EHLO, and MAIL, each with a 2xx code, and hands the
client over when it names its first recipient. What restrictions, Milters and limits here say of
these commands the client learns with the answers to its recipients, as with smtpd_delay_reject.

What was said within TLS, tlsproxy(8) goes on to carry, and it tells what it has agreed upon with
the client. That counts if it asks the same of a session as the service here, and tells the same
about a certificate; otherwise the client has to come again, and shakes hands here.
"""

from typing import TYPE_CHECKING, Final

from daemons.smtpd.answer import CLOSING, SessionEnded
from daemons.smtpd.tls_start import agree
from libmail.handshakes.told import heard
from libmail.ipc.codec import WireError
from libmail.ipc.messages import TlsSession
from libmail.log import LOG
from libmail.smtp.reply import Reply
from libmail.smtp.server import Command

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["resume"]

_AGAIN: Final = Reply(421, "4.3.2", "Service currently unavailable")


async def resume(session: "Session") -> None:
    """Carry out what the client has said before. The last line is next in turn.

    Raises SessionEnded, where a command is refused with the end of the session.
    """
    for secure in session.tls:
        await _go_on_within(session, secure)
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


async def _go_on_within(session: "Session", secure: TlsSession) -> None:
    """What tlsproxy(8) has agreed upon counts here. Raises SessionEnded, where it does not."""
    handshakes = session.server.tls.handshakes
    try:
        if handshakes is None or secure.terms != handshakes.terms:
            raise WireError("other settings than those of this service")
        tls = heard(secure)
    except WireError as error:
        LOG.info(f"{session.client} cannot go on in the TLS session of tlsproxy: {error}")
        await session.send(_AGAIN)
        raise SessionEnded from None
    session.tally.given["STARTTLS"] += 1
    await agree(session, tls)
    session.tally.succeeded("STARTTLS")
