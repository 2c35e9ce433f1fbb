"""The connections of clients in the network: a session for each, and their time limits.

Called by smtpd and qmqpd.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine

from libmail.net.channel import ClientChannel
from libmail.net.channel_watch import ChannelWatch
from libmail.net.poller import Poller
from libmail.service.passing import Passed
from libmail.service.skeleton import Runtime

__all__ = ["ClientChannels"]


class ClientChannels:
    """Makes a session of each connection."""

    def __init__(
        self,
        runtime: Runtime,
        limit: float,
        session: Callable[[ClientChannel], Coroutine[object, object, None]],
    ) -> None:
        """limit: seconds that a client may take to send something, or to take what we send."""
        self._runtime = runtime
        self._limit = limit
        self._session = session
        loop = asyncio.get_running_loop()
        self._poller = Poller(loop)
        self._channels = ChannelWatch(loop)
        self._over = self._ended  # bound once, for thousands of clients

    def accept(self, sock: socket.SocketType) -> None:
        """A client has connected."""
        self._begin(ClientChannel(sock, self._poller, self._limit, self._over))

    def take_over(self, client: Passed) -> None:
        """Another program hands a client over."""
        channel = ClientChannel(client.sock, self._poller, self._limit, self._over, client.ends)
        channel.said, channel.tls = client.said, client.tls
        self._begin(channel)

    def stop(self) -> None:
        """End the sessions that wait for a command."""
        self._channels.stop()

    def _ended(self, channel: ClientChannel) -> None:
        self._channels.discard(channel)
        self._runtime.session_ended()

    def _begin(self, channel: ClientChannel) -> None:
        self._channels.add(channel)
        self._runtime.spawn(self._serve(channel))

    async def _serve(self, channel: ClientChannel) -> None:
        try:
            if channel.ends.client_address:  # else it is gone already
                await self._session(channel)
        except Exception as err:  # noqa: BLE001  a bug, which costs this session and no other
            self._runtime.session_failed(err)
        finally:
            channel.session_over()
