"""The attributes that smtpd_reject_footer may name, see postconf(5)."""

import time
from collections.abc import Mapping

from libmail.lookup.facts import Facts

__all__ = ["footer_values"]


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
