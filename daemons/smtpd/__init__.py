"""smtpd(8): takes mail by SMTP.

Called by: clients in the network; sendmail -bs through `run_standalone`. Asks: trivial-rewrite
(which address is where), cleanup (takes the message, and answers when it is on disk), DNS and the
system for the names of clients, policy servers of others. Writes: nothing itself. Tells: nobody.

Needs: its tables open before the jail; after it public/cleanup, private/rewrite and the network.
"""

import asyncio
import socket
from typing import Final

from daemons.smtpd.prepared import Prepared, open_tables
from daemons.smtpd.server import Server
from daemons.smtpd.session import Session
from daemons.smtpd.standalone import run_standalone
from daemons.smtpd.verbs import VERBS
from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.lookup.facts import Client
from libmail.net.channel import ClientChannel
from libmail.net.channel_watch import ChannelWatch
from libmail.net.ends import Ends
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "run_standalone"]


def prepare(startup: Startup) -> Prepared:
    """Read the configuration and open the tables, before the jail."""
    return open_tables(startup.config, startup.service)


def make_server(prepared: Prepared) -> Server:
    """The part that sessions share, inside the event loop."""
    params = prepared.params

    def pool(path: str) -> ServicePool:
        return ServicePool(
            path, idle=params.ipc_idle, life=params.ipc_ttl, timeout=params.ipc_timeout
        )

    rewrite = pool(f"private/{params.rewrite_service_name}")
    cleanup = pool(f"public/{params.cleanup_service_name}")
    return Server(
        prepared, RewriteClient(rewrite), CleanupClient(cleanup, timeout=params.ipc_timeout)
    )


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Begin to serve."""
    front = Front(make_server(prepared), runtime)
    return Handlers(stream=front.accept, passed=front.accept)


class Front:
    """Makes a session of each connection, and watches over their time limits."""

    def __init__(self, server: Server, runtime: Runtime) -> None:
        self._server = server
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._channels = ChannelWatch(self._loop)
        if server.tls.handshakes is not None:
            server.tls.handshakes.begin(runtime.spawn)
        runtime.spawn(self._stop())

    def accept(self, _: socket.socket, ends: Ends | None = None) -> asyncio.Protocol:
        """A client has connected. ends: as the program says that hands it over."""
        limit = self._server.params.smtpd_timeout
        return ClientChannel(self._loop, limit, self._connected, self._ended, ends)

    def _ended(self, channel: ClientChannel) -> None:
        self._channels.discard(channel)
        self._runtime.session_ended()

    def _connected(self, channel: ClientChannel) -> None:
        self._channels.add(channel)
        self._runtime.spawn(self._serve(channel))

    async def _serve(self, channel: ClientChannel) -> None:
        try:
            ends = channel.ends
            if ends.client_address:  # else it is gone already
                client = Client(
                    ends.client_address,
                    ends.client_port,
                    server_address=ends.server_address,
                    server_port=ends.server_port,
                )
                await Session(self._server, channel, VERBS, client).run()
        except Exception as err:  # noqa: BLE001  a bug, which costs this session and no other
            self._runtime.session_failed(err)
        finally:
            channel.session_over()

    async def _stop(self) -> None:
        """When the system stops: end the sessions that wait for a command."""
        await self._runtime.stopping.wait()
        self._server.stopping = True
        self._channels.stop()


SERVICE: Final = Service("smtpd", prepare, start)
