"""Starts TLS in a session: at once (smtpd_tls_wrappermode), or after STARTTLS."""

from typing import TYPE_CHECKING

from daemons.smtpd.answer import SessionEnded
from libmail.handshakes.events import TlsError
from libmail.log import LOG
from libmail.lookup.facts import Tls
from libmail.net.channel import ClientChannel, ClientGone, ServerStopping
from libmail.tls.errors import TlsFailed, warn_of_problems
from libmail.tls.facts import Trust

if TYPE_CHECKING:
    from daemons.smtpd.rates import ClientRates
    from daemons.smtpd.session import Session

__all__ = ["agree", "begin_wrapped", "start_tls"]


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
    if session.rates is not None and not await session.rates.may_handshake():
        session.tally.kinds |= {"policy"}
        refused = f"Refusing TLS service request from {session.client}"
        LOG.warning(f"{refused} for service {server.service}")
        raise SessionEnded
    await start_tls(session, session.dialogue.core.take_rest())


async def start_tls(session: "Session", received: bytes = b"") -> None:
    """Shake hands; the dialogue goes on inside of TLS, and the facts tell of it.

    received: what has been read of the handshake. Raises SessionEnded, ClientGone.
    """
    setup, dialogue, client = session.server.tls, session.dialogue, session.client
    if setup.handshakes is None or not isinstance(dialogue.channel, ClientChannel):
        raise AssertionError(session)
    try:
        who = session.facts.client
        layer, tls = await setup.handshakes.perform(
            dialogue.channel,
            client,
            setup.patience,
            received,
            name=who.name,
            address=who.address,
        )
    except TlsFailed as error:
        LOG.event(TlsError(client, error.reason))
        warn_of_problems(error.problems)
        if session.rates is not None:
            await session.rates.handshake(session.client)
        raise ClientGone from None
    except ServerStopping:
        raise SessionEnded from None  # there is no way to say anything now
    dialogue.bindings = layer.bindings
    await agree(session, tls)


async def agree(session: "Session", tls: Tls) -> None:
    """What follows from a handshake. Raises SessionEnded."""
    session.facts.tls = tls
    if session.rates is not None and not tls.agreed.resumed:
        await _count(session, session.rates)
    if session.server.tls.requires and tls.trust is not Trust.TRUSTED:
        nothing = tls.trust is Trust.ANONYMOUS
        session.unidentified = (
            "No client certificate presented" if nothing else "Client certificate not trusted"
        )


async def _count(session: "Session", rates: "ClientRates") -> None:
    """smtpd_client_new_tls_session_rate_limit. Raises SessionEnded."""
    refused = await rates.handshake(session.client)
    if refused is not None:
        session.tally.kinds |= {"policy"}
        await session.send(refused)
        raise SessionEnded
