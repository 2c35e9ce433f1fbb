"""The sessions of tlsproxy(8): TLS at one end, octets in the clear at the other.

The client is not read from while the other end does not take what it says, or the client what it is
sent, so that a session holds no more than some 64 KiB. A client has so many seconds for its
handshake as postscreen(8) says. After that postscreen, or smtpd(8) that it hands the other end to,
has time limits of its own, and closes that end when it has enough, or when the system stops.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from daemons.tlsproxy.events import Connect, Disconnect, HandshakeFailed
from libmail.handshakes.told import told
from libmail.ipc.codec import WireError
from libmail.ipc.messages import CODEC, TlsProxyReply, TlsProxyRequest
from libmail.log import LOG, printable
from libmail.net.channel import ClientChannel, ClientGone, ClientSilent, ServerStopping
from libmail.net.channel_watch import ChannelWatch
from libmail.net.ends import Ends
from libmail.net.poller import Poller
from libmail.net.unix_stream import UnixStream
from libmail.net.wakeup import Wakeup
from libmail.service.connection import Connection
from libmail.service.passing import stream_socket
from libmail.service.skeleton import Runtime
from libmail.tls.errors import TlsFailed, warn_of_problems

if TYPE_CHECKING:
    from libmail.handshakes.server import Handshakes

__all__ = ["Proxy"]

_LONGEST_NAME = 100
_IDLE = 86_400.0  # seconds, longer than anybody waits for a client


class _ClearEnd(asyncio.Protocol):
    """The other end. What it says goes to the client; `taken` is for what the client says.

    close: called when it is closed.
    """

    def __init__(self, inside: ClientChannel, close: Callable[[], None]) -> None:
        self._inside = inside
        self._close = close
        self._blocked = False
        self._wakeup = Wakeup(asyncio.get_running_loop())

    def data_received(self, data: bytes) -> None:
        """Called by the stream."""
        self._inside.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the stream. The client gets what was said, and the session ends."""
        self._blocked = False
        self._close()
        self._wakeup.wake()

    def pause_writing(self) -> None:
        """Called by the stream."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Called by the stream."""
        self._blocked = False
        self._wakeup.wake()

    async def taken(self) -> None:
        """Wait until most of what was written has been taken."""
        while self._blocked:
            await self._wakeup


class Proxy:
    """handshakes: None where they are not possible."""

    def __init__(self, handshakes: Handshakes | None, runtime: Runtime) -> None:
        self._handshakes = handshakes
        loop = asyncio.get_running_loop()
        self._poller = Poller(loop)
        self._channels = ChannelWatch(loop)
        self._runtime = runtime
        runtime.spawn(self._stop())

    async def _stop(self) -> None:
        await self._runtime.stopping.wait()
        self._channels.stop()

    async def serve(self, connection: Connection) -> None:
        """One client, to its end; the connection is over before."""
        request = await connection.receive_as(TlsProxyRequest)
        with ExitStack() as sockets:
            try:
                found = [stream_socket(fd) for fd in connection.take_descriptors(2)]
            except OSError as error:
                raise WireError(f"no connection was handed over: {error.strerror}") from error
            network, clear = map(sockets.enter_context, found)
            connection.send(TlsProxyReply(self._handshakes is not None))
            connection.close()
            if self._handshakes is None:
                LOG.seldom("TLS is not available", ": see the warnings before")
                return
            client = printable(request.client[:_LONGEST_NAME])
            LOG.event(Connect(client))
            await self._session(self._handshakes, network, clear, client, request.timeout)
            LOG.event(Disconnect(client))

    async def _session(
        self,
        handshakes: Handshakes,
        network: socket.socket,
        clear: socket.socket,
        client: str,
        timeout: float,
    ) -> None:
        closed = asyncio.Event()

        def ended(channel: ClientChannel) -> None:
            self._channels.discard(channel)
            closed.set()

        channel = ClientChannel(network, self._poller, timeout, ended, Ends())
        self._channels.add(channel)
        try:
            address = client.partition("[")[2].partition("]")[0]
            _, tls = await handshakes.perform(channel, client, timeout, address=address)

            def close() -> None:
                channel.limit(timeout)
                channel.close()

            channel.limit(_IDLE)
            await self._relay(channel, clear, CODEC.encode(told(tls, handshakes.terms)), close)
        except TlsFailed as error:
            warn_of_problems(error.problems)
            LOG.event(HandshakeFailed(client, error.reason))
        except (ClientGone, ClientSilent, ServerStopping):
            pass
        finally:
            channel.session_over()
            await closed.wait()

    async def _relay(
        self,
        inside: ClientChannel,
        clear: socket.socket,
        session: bytes,
        close: Callable[[], None],
    ) -> None:
        """Pass on what both ends say. session: what is said first. close: closes the client's end.

        Raises ClientGone, ClientSilent.
        """
        end = _ClearEnd(inside, close)
        stream = UnixStream(stream_socket(clear.detach()), end)
        try:
            stream.write(session)
            while True:
                stream.write(await inside.read(idle=False))
                await end.taken()
        finally:
            close()
            stream.close()
