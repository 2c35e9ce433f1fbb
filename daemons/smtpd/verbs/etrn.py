"""ETRN, RFC 1985: start the delivery of the queued mail for a site."""

from typing import Final

from daemons.smtpd.answer import Answer, answer, by_policy
from daemons.smtpd.events import EtrnRefused
from daemons.smtpd.session import Session
from libmail.clients.flush import is_site
from libmail.log import LOG, Level
from libmail.service.pool import ServiceUnavailable
from libmail.smtp.reply import Reply
from libmail.tables.table import TableRetry

__all__ = ["etrn"]

_SHOWN: Final = 100  # octets of the argument in the log


async def etrn(session: Session, argument: str) -> Answer:
    """ETRN domain."""
    server, facts = session.server, session.facts
    if server.params.smtpd_helo_required and not facts.helo_name:
        return by_policy(Reply(503, "", "Error: send HELO/EHLO first"))
    if session.transaction is not None:
        return answer(Reply(503, "", "Error: MAIL transaction in progress"))
    if len(argument.split()) != 1:
        return answer(Reply(500, "", "Syntax: ETRN domain"))
    site = argument[1:] if argument[0] in "@#" else argument
    if not is_site(site):
        return answer(Reply(501, "", "Error: invalid parameter syntax"))
    facts.mail.recipient = site  # what the restrictions are about; it is no recipient for the log
    try:
        verdict = await server.restrictions.etrn(facts, session.lookups)
    finally:
        facts.mail.recipient = None
    refused = session.judge(verdict)
    if refused is not None:
        return refused
    return answer(await _queue_run(session, site))


async def _queue_run(session: Session, site: str) -> Reply:
    """Only sites that fast_flush_domains lists can be flushed."""
    flush = session.server.flush
    try:
        if not await flush.knows(site):
            LOG.event(EtrnRefused(site[:_SHOWN], session.client), Level.WARNING)
            return Reply(459, "", f"<{site}>: service unavailable")
        problem = await flush.send_site(site)
    except TableRetry as err:
        problem = f"fast_flush_domains: {err}"
    except ServiceUnavailable as err:
        problem = f"unable to talk to fast flush service: {err}"
    if not problem:
        return Reply(250, "", "Queuing started")
    LOG.warning(problem)
    return Reply(458, "", "Unable to queue messages")
