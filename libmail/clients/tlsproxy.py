"""The client of tlsproxy(8), which does TLS for programs that do not do it themselves.

Called by: postscreen. Asks: `private/tlsproxy`.
"""

import socket
from typing import Final

from libmail.ipc.codec import WireError
from libmail.ipc.messages import CODEC, TlsProxyReply, TlsProxyRequest, TlsSession
from libmail.service.pool import ServicePool, ServiceUnavailable

__all__ = ["TlsProxyClient", "read_session"]

_PATIENCE: Final = 10.0  # seconds to wait for the answer


class TlsProxyClient:
    """Asks tlsproxy(8). path: of its socket."""

    def __init__(self, path: str) -> None:
        self._pool = ServicePool(path, idle=0, timeout=_PATIENCE, wait=False)

    async def begin(self, sock: socket.SocketType, client: str, timeout: float) -> socket.socket:
        """Hand a client's socket over, of which the caller closes its own copy.

        client, timeout: see TlsProxyRequest. Returns the socket that carries the data within TLS,
        behind what `read_session` reads; it is closed when the session ends, also if the handshake
        fails. Raises ServiceUnavailable, OSError, and leaves the client's socket alone then.
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


def read_session(data: bytes) -> tuple[TlsSession, int]:
    """What the socket begins with, and how many octets that is. Raises WireError.

    It comes in one piece, as nothing was sent before it.
    """
    session, octets = CODEC.first(data)
    if not isinstance(session, TlsSession):
        raise WireError("no TLS session")
    return session, octets
