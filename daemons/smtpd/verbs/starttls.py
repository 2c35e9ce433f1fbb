"""STARTTLS, RFC 3207.

Data that was sent behind the command is discarded (RFC 3207 §6): an attacker on the way could have
inserted it, to have it taken for commands that the client sent within TLS.
"""

from functools import partial
from typing import Final

from daemons.smtpd.answer import Answer, answer, by_policy
from daemons.smtpd.rates import Rates
from daemons.smtpd.session import Session
from daemons.smtpd.tls_start import start_tls
from libmail.log import LOG
from libmail.smtp.reply import Reply
from libmail.tls.levels import Level

__all__ = ["starttls", "starttls_off"]

_ACTIVE: Final = answer(Reply(554, "5.5.1", "Error: TLS already active"))
_NOT_HERE: Final = answer(Reply(502, "5.5.1", "Error: command not implemented"))
_READY: Final = Reply(220, "2.0.0", "Ready to start TLS")
_UNAVAILABLE: Final = Answer(
    Reply(454, "4.7.0", "TLS not available due to local problem"), error=True, kind="resource"
)


def starttls_off(session: Session) -> Answer | None:
    """Whether STARTTLS is not available: TLS is active already, or switched off."""
    if session.facts.tls is not None:
        return _ACTIVE
    if session.server.tls.level is Level.NONE or "STARTTLS" in session.discard:
        return _NOT_HERE
    return None


async def starttls(session: Session, _: str) -> Answer:
    """STARTTLS: the handshake follows the reply."""
    if session.server.tls.handshakes is None:
        return _UNAVAILABLE
    if session.rates is not None and not await session.rates.may_handshake():
        LOG.warning(
            f"Refusing STARTTLS request from {session.client} for service {session.server.service}"
        )
        return by_policy(Reply(454, "4.7.0", Rates.too_many_handshakes(session.client)))
    return Answer(_READY, error=False, counted=False, then=partial(_go_on, session))


async def _go_on(session: Session) -> None:
    session.dialogue.channel.discard_input()
    session.start_over()
    await start_tls(session)
    session.tally.succeeded("STARTTLS")
