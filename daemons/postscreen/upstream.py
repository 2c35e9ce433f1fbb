"""postscreen_upstream_proxy_protocol: the real client, from the PROXY header of HAProxy etc."""

import asyncio
from typing import Final

from daemons.postscreen.client_socket import ClientSocket, Gone
from daemons.postscreen.events import shown
from libmail.log import LOG
from libmail.net.ends import Ends
from libmail.smtp.proxy_protocol import ProxyError, parse_proxy_header

__all__ = ["behind_proxy"]

_WHAT: Final = "haproxy read"


async def behind_proxy(
    client: ClientSocket, ends: Ends, *, ipv6: bool, timeout: float
) -> Ends | None:
    """The addresses in the PROXY header; those of the socket for a LOCAL connection.

    Only the header is read. ipv6: clients can have IPv6 addresses. timeout: seconds. Returns None,
    with a warning, for an invalid header, or none in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    data = b""
    try:
        while await client.wait(deadline - loop.time(), reading=True):
            fresh = client.peek()
            found = parse_proxy_header(data + fresh, ipv6=ipv6)
            if found is not None:
                proxied, end = found
                client.read(end - len(data))
                return ends if proxied is None else Ends(*proxied)
            data += client.read(len(fresh))
    except Gone:
        LOG.warning(f"{_WHAT}: EOF")
    except ProxyError as error:
        LOG.warning(f"{_WHAT}: {error}: {shown(data + fresh)}")
    else:
        LOG.warning(f"{_WHAT}: time limit exceeded")
    return None
