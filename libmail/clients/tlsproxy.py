"""TLS with a client, by tlsproxy(8), for programs that do not speak it themselves.

Called by: postscreen. Asks: `private/tlsproxy`.
"""

import socket
from typing import Final

from libmail.ipc.messages import TlsProxyReply, TlsProxyRequest
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = ["TlsProxyClient"]

_PATIENCE: Final = 10.0  # seconds until it says whether it does


class TlsProxyClient:
    """path: of the socket."""

    def __init__(self, path: str) -> None:
        self._pool = ServicePool(path, idle=0, timeout=_PATIENCE, wait=False)

    async def begin(self, sock: socket.socket, client: str, timeout: float) -> socket.socket:
        """Hand a client's socket over, of which the caller closes its own copy.

        client, timeout: see TlsProxyRequest. Returns the socket over which goes what is said inside
        of TLS; it ends when the session does, be it that the handshake fails. Raises
        ServiceUnavailable, OSError; the client's socket is as before then.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                async with self._pool.connection() as connection:
                    descriptors = (sock.fileno(), theirs.fileno())
                    connection.send_with(TlsProxyRequest(client, timeout), descriptors)
                    reply = await self._pool.answer(connection, TlsProxyReply)
            if not reply.available:
                raise ServiceUnavailable(f"{self._pool.path}: TLS is not available")
        except BaseException:
            ours.close()
            raise
        return ours
