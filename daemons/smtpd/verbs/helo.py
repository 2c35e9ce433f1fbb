"""HELO and EHLO, RFC 5321 §4.1.1.1."""

import re
from typing import Final

from daemons.smtpd.answer import CLOSING, Answer, answer
from daemons.smtpd.ehlo import ALMOST_ALL, logged
from daemons.smtpd.logins import NoMechanisms
from daemons.smtpd.session import Session
from daemons.smtpd.verbs.auth import auth_unavailable
from libmail.log import LOG
from libmail.smtp.reply import Reply

__all__ = ["ehlo", "helo"]

# Characters with a meaning in a Received: header or a log line.
_UNSAFE: Final = {ord(char): "?" for char in ' <>()\\";@'}
_BLANKS: Final = re.compile(r"[ \t]+")


async def helo(session: Session, argument: str) -> Answer:
    """HELO name."""
    if not argument:
        return answer(Reply(501, "", "Syntax: HELO hostname"))
    refused = await _introduce(session, argument) or await _gone(session)
    if refused is not None:
        return refused
    return answer(Reply(250, "", session.server.params.myhostname))


async def ehlo(session: Session, argument: str) -> Answer:
    """EHLO name."""
    if not argument:
        return answer(Reply(501, "", "Syntax: EHLO hostname"))
    refused = await _introduce(session, argument)
    if refused is not None:
        return refused
    facts, rules = session.facts, session.server.clients
    unwelcome = None if session.milters is None else await session.milters.helo()
    if unwelcome is not None and unwelcome.reply.code in CLOSING:
        return unwelcome
    facts.protocol = "ESMTP"
    if unwelcome is not None and unwelcome.reply.code >= 500:
        session.discard = ALMOST_ALL
        return session.server.announcements.answer_for(session)
    discard = await rules.discarded(facts.client.address)
    if discard and discard != session.discard and "SILENT-DISCARD" not in discard:
        LOG.info(f"discarding EHLO keywords: {logged(discard)}")
    session.discard = discard
    session.may_verp = await rules.allows_verp(facts.client)
    try:
        session.login.announced = await session.server.logins.announced(
            facts, session.dialogue.bindings
        )
    except NoMechanisms:
        return auth_unavailable(session)
    return session.server.announcements.answer_for(session)


async def _gone(session: Session) -> Answer | None:
    """A Milter's order to close the connection; its other refusals take effect at MAIL."""
    refused = None if session.milters is None else await session.milters.helo()
    return refused if refused is not None and refused.reply.code in CLOSING else None


async def _introduce(session: Session, argument: str) -> Answer | None:
    """Reset the transaction and take the client's name; the refusal of a restriction, or None.

    Restrictions see the name as it was given; afterwards unsafe characters are replaced.
    """
    session.drop_transaction()
    facts = session.facts
    facts.helo_name = name = " ".join(_BLANKS.split(argument))
    restrictions = session.server.restrictions
    if restrictions.at_helo:
        refused = session.judge(await restrictions.helo(facts, session.lookups))
        if refused is not None:
            facts.helo_name = ""
            return refused
    name = name.translate(_UNSAFE)
    if not name.isprintable():
        name = "".join([char if char.isprintable() else "?" for char in name])
    facts.helo_name = name
    return None
