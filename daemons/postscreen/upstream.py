"""postscreen_upstream_proxy_protocol: who is behind the proxy in front of us (HAProxy, ...)."""

import asyncio
from typing import Final

from daemons.postscreen.events import shown
from daemons.postscreen.visitor import Gone, Visitor
from libmail.log import LOG
from libmail.net.ends import Ends
from libmail.smtp.proxy_protocol import ProxyError, parse_proxy_header

__all__ = ["behind_proxy"]

_WHAT: Final = "haproxy read"


async def behind_proxy(visitor: Visitor, ends: Ends, *, ipv6: bool, timeout: float) -> Ends | None:
    """The ends that the proxy tells of; those of the socket where it comes of its own.

    Nothing is read but the header. ipv6: clients can have such addresses. timeout: seconds. None,
    with a warning, for what is no header, or none in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    data = b""
    try:
        while await visitor.wait(deadline - loop.time(), reading=True):
            fresh = visitor.peek()
            found = parse_proxy_header(data + fresh, ipv6=ipv6)
            if found is not None:
                proxied, end = found
                visitor.read(end - len(data))
                return ends if proxied is None else Ends(*proxied)
            data += visitor.read(len(fresh))
    except Gone:
        LOG.warning(f"{_WHAT}: EOF")
    except ProxyError as error:
        LOG.warning(f"{_WHAT}: {error}: {shown(data + fresh)}")
    else:
        LOG.warning(f"{_WHAT}: time limit exceeded")
    return None
