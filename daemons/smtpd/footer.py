r"""smtpd_reject_footer: text added to every reply that refuses.

The footer is a line of its own, with the code of the reply, unless it begins with `\c`; `\n`
begins another line. Knows the attributes that postconf(5) names.
"""

import time
from collections.abc import Mapping

from libmail.config.errors import ExpansionError
from libmail.config.expand import expand
from libmail.log import LOG
from libmail.lookup.facts import Facts
from libmail.smtp.reply import Reply

__all__ = ["add_footer", "footer_values"]


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


def add_footer(reply: Reply, footer: str, values: Mapping[str, str]) -> Reply:
    """The reply with the footer; a footer that cannot be expanded is left out, with a warning."""
    try:
        text = expand(footer, values.get)
    except ExpansionError as err:
        LOG.warning(f"smtpd_reject_footer: {err}")
        return reply
    text = text.replace("\\n", "\n")
    if text.startswith("\\c"):
        return Reply(reply.code, reply.dsn, reply.text + text[2:])
    return Reply(reply.code, reply.dsn, f"{reply.text}\n{text}")
