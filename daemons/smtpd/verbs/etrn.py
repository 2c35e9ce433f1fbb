"""ETRN, RFC 1985: have the mail for a site delivered now."""

from typing import Final

from daemons.smtpd.session import Answer, Session
from libmail.dns.hostname import valid_hostliteral, valid_hostname
from libmail.log import LOG
from libmail.smtp.reply import Reply
from libmail.tables.table import TableRetry

__all__ = ["etrn"]

_SHOWN: Final = 100  # octets of the argument in the log


async def etrn(session: Session, argument: str) -> Answer:
    """ETRN domain."""
    server, facts = session.server, session.facts
    if server.params.smtpd_helo_required and not facts.helo_name:
        return Reply(503, "", "Error: send HELO/EHLO first")
    if session.transaction is not None:
        return Reply(503, "", "Error: MAIL transaction in progress")
    if len(argument.split()) != 1:
        return Reply(500, "", "Syntax: ETRN domain")
    site = argument[1:] if argument[0] in "@#" else argument
    if not valid_hostname(site) and not valid_hostliteral(site):
        return Reply(501, "", "Error: invalid parameter syntax")
    facts.recipient = site  # what the restrictions are about; it is no recipient for the log
    try:
        verdict = await server.etrn(facts)
    finally:
        facts.recipient = None
    session.carry_out(verdict)
    if verdict.reply is not None:
        return verdict.reply
    return await _queue_run(session, site)


async def _queue_run(session: Session, site: str) -> Reply:
    """Only sites that fast_flush_domains names can be flushed, by flush(8)."""
    try:
        if not await session.server.prepared.flush_domains.match(site):
            LOG.warning(f"reject: ETRN {site[:_SHOWN]}... from {session.client}")
            return Reply(459, "", f"<{site}>: service unavailable")
    except TableRetry as err:
        LOG.warning(f"fast_flush_domains: {err}")
    LOG.warning("unable to talk to fast flush service")
    return Reply(458, "", "Unable to queue messages")
