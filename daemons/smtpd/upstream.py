"""smtpd_upstream_proxy_protocol: the real client, from the PROXY header of HAProxy and its like."""

import asyncio

from daemons.smtpd.dialogue import Dialogue
from libmail.log import LOG
from libmail.lookup.facts import Client, NameStatus
from libmail.net.channel import ClientGone, ClientSilent
from libmail.smtp.proxy_protocol import Proxied, ProxyError, parse_proxy_header
from libmail.text.escapes import escaped_octets

__all__ = ["UNKNOWN_CLIENT", "behind_proxy"]

_SHOWN = 200  # octets of an invalid header in the log
UNKNOWN_CLIENT = Client(
    "unknown",
    "unknown",
    name_status=NameStatus.NOT_FOUND,
    reverse_status=NameStatus.NOT_FOUND,
    server_address="unknown",
    server_port="unknown",
)
"""The client of a connection whose PROXY header cannot be read."""


async def behind_proxy(
    dialogue: Dialogue, client: Client, *, ipv6: bool, timeout: float
) -> Client | None:
    """The client that the PROXY header names, or the proxy itself for a LOCAL connection.

    client: the other end of the connection. ipv6: clients can have IPv6 addresses. timeout:
    seconds. Returns None, with a warning, for an invalid header, or none in time.
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
        LOG.warning(f"haproxy read: {error}: {escaped_octets(data[:_SHOWN])}")
        return None
    proxied, end = found
    if rest := data[end:]:
        dialogue.core.receive_data(rest)
    return client if proxied is None else _replaced(client, proxied)


def _replaced(client: Client, proxied: Proxied) -> Client:
    return client._replace(
        address=proxied.client_address,
        port=proxied.client_port,
        server_address=proxied.server_address,
        server_port=proxied.server_port,
    )
