"""The footer of refusals: which one it is, and what it may name, see postconf(5)."""

import time
from collections.abc import Mapping

from daemons.smtpd.prepared import Prepared
from libmail.lookup.facts import Facts
from libmail.smtp.reply import Reply
from libmail.tables.table import TableRetry

__all__ = ["footer_values", "reject_footer"]


async def reject_footer(prepared: Prepared, reply: Reply) -> str:
    """What smtpd_reject_footer_maps have for it, or else smtpd_reject_footer; "" for none."""
    usual = prepared.params.smtpd_reject_footer
    if not prepared.footer_maps:
        return usual
    try:
        return await prepared.footer_maps.find(reply.line) or usual
    except TableRetry:
        return usual  # the table has warned; the reply is true without


def footer_values(facts: Facts, server: str, time_now: float) -> Mapping[str, str]:
    """The attributes that a footer may name. server: our host name."""
    stamp = time.strftime("%b %d %H:%M:%S", time.localtime(time_now))
    return {
        "client_address": facts.client.address,
        "client_port": facts.client.port,
        "localtime": stamp,
        "recipient": facts.mail.recipient or "",
        "server_name": server,
    }
