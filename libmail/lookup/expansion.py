"""What a text for a client may name of its session: replies of DNS lists, footers of refusals."""

import time
from collections.abc import Mapping

from libmail.lookup.facts import Facts
from libmail.smtp.address import split_address

__all__ = ["session_values"]


def session_values(facts: Facts, server: str, now: float) -> Mapping[str, str]:
    """The attributes by name. server: our host name. now: seconds since the epoch."""
    client = facts.client
    sender, recipient = facts.mail.sender, facts.mail.recipient or ""
    name, domain = split_address(sender or "")
    recipient_name, recipient_domain = split_address(recipient)
    return {
        "client": client.shown,
        "client_address": client.address,
        "client_name": client.name,
        "client_port": client.port,
        "helo_name": facts.helo_name,
        "localtime": time.strftime("%b %d %H:%M:%S", time.localtime(now)),
        "recipient": recipient,
        "recipient_domain": recipient_domain,
        "recipient_name": recipient_name,
        "reverse_client_name": client.reverse_name,
        "sender": "<>" if sender == "" else sender or "",
        "sender_domain": domain,
        "sender_name": "<>" if sender == "" else name,
        "server_name": server,
    }
