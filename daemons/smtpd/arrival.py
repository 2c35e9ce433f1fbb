"""A new connection: find out who the client is, and whether it may have another connection."""

from typing import TYPE_CHECKING

from daemons.smtpd.tls_start import begin_wrapped
from daemons.smtpd.upstream import UNKNOWN_CLIENT, behind_proxy
from libmail.log import LOG
from libmail.log.events import ConnectLine
from libmail.lookup.record import RecordingLookups
from libmail.lookup.watched import ToldLookups
from libmail.smtp.reply import Reply

if TYPE_CHECKING:
    from daemons.smtpd.session import Session

__all__ = ["arrive"]


async def arrive(session: "Session") -> Reply | None:
    """Identify the client and log its connection. Returns the reply that refuses it, or None.

    Raises SessionEnded, ClientGone.
    """
    server, facts, dialogue = session.server, session.facts, session.dialogue
    if server.params.smtpd_upstream_proxy_protocol:
        client = await behind_proxy(
            dialogue,
            facts.client,
            ipv6=server.options.ipv6,
            timeout=server.params.smtpd_upstream_proxy_timeout,
        )
        if client is None:
            facts.client = UNKNOWN_CLIENT
            LOG.event(ConnectLine(session.client))
            return Reply(421, "4.3.0", f"{server.params.myhostname} Server local error")
        facts.client = client
    client = facts.client = await server.peers.named(facts.client)
    LOG.event(ConnectLine(session.client))
    watched = server.prepared.watched
    if watched and await watched.match(client.name, client.address):
        session.tally.watch(session.client)
        if watched.with_lookups:
            session.lookups = RecordingLookups(session.lookups, ToldLookups())
    rates = session.rates = await server.rates.of(client)
    if server.tls.wrapped:
        await begin_wrapped(session)
    if rates is not None:
        refused = await rates.connect(session.client)
        if refused is not None:
            session.tally.kinds |= {"policy"}
            return refused
        facts.client = client._replace(connections=rates.connections)
    dialogue.core.treat_newlines(await server.clients.newlines(client))
    if server.clients.authorizes_some:
        session.authorization = await server.clients.authorization(client)
    return None
