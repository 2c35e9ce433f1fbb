"""How replies go to a client: soft_bounce, and the footer of those that refuse."""

import time

from daemons.postscreen.prepared import Prepared
from libmail.net.ends import Ends
from libmail.smtp.footer import add_footer
from libmail.smtp.reply import Reply, softened
from libmail.tables.table import TableRetry

__all__ = ["finished"]


async def finished(prepared: Prepared, reply: Reply, ends: Ends) -> Reply:
    """The reply as the client gets it. ends: of its connection."""
    if reply.positive:
        return reply
    params = prepared.params
    if params.soft_bounce and reply.code >= 500:
        reply = softened(reply)
    footer = prepared.footer
    if prepared.footer_maps:
        try:
            footer = await prepared.footer_maps.find(reply.line) or footer
        except TableRetry:
            pass  # the table has warned; the reply is true without
    if not footer:
        return reply
    values = {
        "client_address": ends.client_address,
        "client_port": ends.client_port,
        "localtime": time.strftime("%b %d %H:%M:%S"),
        "server_name": params.myhostname,
    }
    return add_footer(reply, footer, values, prepared.allowed, "postscreen_reject_footer")
