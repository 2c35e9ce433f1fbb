"""Hands a client over to the SMTP server, a service of type pass: its socket, and both addresses.

With postscreen_deep_handover also what the client has said in a session with our own SMTP; where
that was within TLS, the socket is that of tlsproxy(8), which stays between the client and smtpd.
A client waits in the backlog of the service until a process takes it.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Final

from libmail.ipc.messages import CODEC, PassedClient, TlsSession
from libmail.net.ends import Ends
from libmail.net.unix_stream import UnixStream, connect_unix

__all__ = ["HandoverFailed", "hand_over"]

_PATIENCE: Final = 100.0  # seconds until some process takes the client
_PAUSE: Final = 0.1  # seconds between looks at a backlog that is full


class HandoverFailed(Exception):
    """The client was not handed over. The text says why."""


class _Carrier(asyncio.Protocol):
    """The connection that carries a client. gone: done when the service has closed it."""

    def __init__(self) -> None:
        self.gone: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the stream."""
        if not self.gone.done():
            self.gone.set_result(exc)


async def hand_over(
    service: str,
    sock: socket.SocketType,
    ends: Ends,
    said: Sequence[str] = (),
    tls: Sequence[TlsSession] = (),
) -> None:
    """Hand a client over to the service, which has it on return. The caller's socket stays open.

    said, tls: see PassedClient. Raises HandoverFailed.
    """
    carrier = _Carrier()
    stream: UnixStream | None = None
    try:
        async with asyncio.timeout(_PATIENCE):
            stream = await _connected(f"private/{service}", carrier)
            client = PassedClient(*ends, tuple(said), tuple(tls))
            stream.write_with(CODEC.encode(client), [sock.fileno()])
            error = await carrier.gone
    except TimeoutError:
        raise HandoverFailed(f"timeout sending connection to service {service}") from None
    except OSError as err:
        raise HandoverFailed(f"cannot connect to service {service}: {err.strerror}") from err
    finally:
        if stream is not None:
            stream.abort()
    if error is not None:
        raise HandoverFailed(f"cannot pass connection to service {service}: {error}")


async def _connected(path: str, carrier: _Carrier) -> UnixStream:
    """Raises OSError."""
    while True:
        try:
            return connect_unix(path, carrier)
        except BlockingIOError:
            await asyncio.sleep(_PAUSE)
