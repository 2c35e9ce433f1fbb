"""smtpd_upstream_proxy_protocol: who is behind the proxy in front of us (HAProxy and its like)."""

import asyncio
from dataclasses import replace

from daemons.smtpd.dialogue import Dialogue
from daemons.smtpd.events import escaped
from libmail.log import LOG
from libmail.lookup.facts import Client, NameStatus
from libmail.net.channel import ClientGone, ClientSilent
from libmail.smtp.proxy_protocol import Proxied, ProxyError, parse_proxy_header

__all__ = ["UNKNOWN_CLIENT", "behind_proxy"]

_SHOWN = 200  # octets of what is no header, for the log
UNKNOWN_CLIENT = Client(
    "unknown",
    "unknown",
    name_status=NameStatus.NOT_FOUND,
    reverse_status=NameStatus.NOT_FOUND,
    server_address="unknown",
    server_port="unknown",
)
"""Where the proxy does not say who the client is."""


async def behind_proxy(
    dialogue: Dialogue, client: Client, *, ipv6: bool, timeout: float
) -> Client | None:
    """The client that the proxy tells of, or the proxy itself where it comes of its own.

    client: who is connected. ipv6: clients can have such addresses. timeout: seconds. None, with a
    warning, for what is no header, or none in time.
    """
    data = b""
    try:
        async with asyncio.timeout(timeout):
            while (found := parse_proxy_header(data, ipv6=ipv6)) is None:
                data += await dialogue.channel.read(idle=True)
    except (ClientGone, ClientSilent):
        LOG.warning("haproxy read: EOF")
        return None
    except TimeoutError:
        LOG.warning("haproxy read: timeout error")
        return None
    except ProxyError as error:
        shown = escaped(data[:_SHOWN].decode("ascii", "backslashreplace"))
        LOG.warning(f"haproxy read: {error}: {shown}")
        return None
    proxied, end = found
    if rest := data[end:]:
        dialogue.core.receive_data(rest)
    return client if proxied is None else _replaced(client, proxied)


def _replaced(client: Client, proxied: Proxied) -> Client:
    return replace(
        client,
        address=proxied.client_address,
        port=proxied.client_port,
        server_address=proxied.server_address,
        server_port=proxied.server_port,
    )
