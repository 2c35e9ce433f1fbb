"""A session goes on inside of TLS: at once (smtpd_tls_wrappermode), or after STARTTLS."""

from typing import TYPE_CHECKING

from daemons.smtpd.answer import SessionEnded
from libmail.log import LOG
from libmail.net.channel import ClientGone, ServerStopping
from libmail.tls.errors import TlsFailed
from libmail.tls.facts import Trust

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["begin_wrapped", "start_tls"]


async def begin_wrapped(session: "Session") -> None:
    """The client shakes hands before anything is said; a proxy's line may have been before.

    Raises SessionEnded, ClientGone.
    """
    server = session.server
    if server.tls.handshakes is None:
        LOG.warning(
            f"Wrapper-mode request dropped from {session.client} for service {server.service}."
            " TLS context initialization failed. For details see earlier warnings in your logs."
        )
        raise SessionEnded
    await start_tls(session, session.dialogue.core.take_rest())


async def start_tls(session: "Session", received: bytes = b"") -> None:
    """Shake hands; the dialogue goes on inside of TLS, and the facts tell of it.

    received: what has been read of the handshake. Raises SessionEnded, ClientGone.
    """
    handshakes, dialogue = session.server.tls.handshakes, session.dialogue
    if handshakes is None:
        raise AssertionError(session)
    try:
        inside, tls = await handshakes.shake(dialogue.channel, session.client, received)
    except TlsFailed:
        raise ClientGone from None
    except ServerStopping:
        raise SessionEnded from None  # there is no way to say anything now
    dialogue.channel = inside
    session.facts.tls = tls
    if session.server.tls.requires and tls.trust is not Trust.TRUSTED:
        nothing = tls.trust is Trust.ANONYMOUS
        session.unidentified = (
            "No client certificate presented" if nothing else "Client certificate not trusted"
        )
