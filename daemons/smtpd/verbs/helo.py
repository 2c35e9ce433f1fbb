"""HELO and EHLO, RFC 5321 §4.1.1.1."""

from typing import Final

from daemons.smtpd.session import Answer, Session
from libmail.log import LOG
from libmail.smtp.reply import Reply

__all__ = ["ehlo", "helo"]

# What would be misread in a Received: header, or in a log line.
_UNSAFE: Final = {ord(char): "?" for char in '<>()\\";'}


async def helo(session: Session, argument: str) -> Answer:
    """HELO name."""
    if not argument:
        return Reply(501, "", "Syntax: HELO hostname")
    refused = await _introduce(session, argument)
    if refused is not None:
        return refused
    session.facts.protocol = "SMTP"
    return Reply(250, "", session.server.params.myhostname)


async def ehlo(session: Session, argument: str) -> Answer:
    """EHLO name."""
    if not argument:
        return Reply(501, "", "Syntax: EHLO hostname")
    refused = await _introduce(session, argument)
    if refused is not None:
        return refused
    session.facts.protocol = "ESMTP"
    discard = await session.server.discarded(session.facts.client_address)
    if discard and discard != session.discard and "SILENT-DISCARD" not in discard:
        LOG.info(f"discarding EHLO keywords: {', '.join(_ordered(discard))}")
    session.discard = discard
    return session.server.ehlo(discard, verp=await session.server.allows_verp(session.facts))


_ORDER: Final = (
    "8BITMIME", "AUTH", "ETRN", "PIPELINING", "SIZE", "VERP", "VRFY", "XCLIENT", "XFORWARD",
    "ENHANCEDSTATUSCODES", "DSN", "STARTTLS", "SMTPUTF8", "CHUNKING", "REQUIRETLS",
)  # fmt: skip


def _ordered(discard: frozenset[str]) -> list[str]:
    return [keyword for keyword in _ORDER if keyword in discard]


async def _introduce(session: Session, argument: str) -> Reply | None:
    """Take the client's name, and begin anew; the reply of a restriction that refuses it."""
    session.drop_transaction()
    facts = session.facts
    name = argument.split()[0].translate(_UNSAFE)
    facts.helo_name = "".join([char if char.isprintable() else "?" for char in name])
    verdict = await session.server.helo(facts)
    session.carry_out(verdict)
    if verdict.reply is not None:
        facts.helo_name = ""
    return verdict.reply
