"""qmqpd(8): takes mail by QMQP from hosts that may send any.

Called by: clients in the network, such as qmail's mini installations and ezmlm. Asks: cleanup
(takes the message, and answers when it is on disk), the system for the names of clients. Writes:
nothing itself. Tells: nobody.

Needs: its list of clients open before the jail; after it public/cleanup and the network.
"""

from typing import Final

from daemons.qmqpd.prepared import Prepared, prepare
from daemons.qmqpd.session import Server, Session
from libmail.clients.cleanup import CleanupClient
from libmail.lookup.peer import client_at
from libmail.net.channel import ClientChannel
from libmail.service.client_channels import ClientChannels
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service

__all__ = ["SERVICE"]


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Begin to serve."""
    params = prepared.params
    pool = ServicePool(
        f"public/{params.cleanup_service_name}",
        idle=params.ipc_idle,
        life=params.ipc_ttl,
        timeout=params.ipc_timeout,
    )
    server = Server(prepared, CleanupClient(pool, timeout=params.ipc_timeout))

    async def session(channel: ClientChannel) -> None:
        await Session(server, channel, client_at(channel.ends)).run()

    channels = ClientChannels(runtime, params.qmqpd_timeout, session)

    async def stop() -> None:
        await runtime.stopping.wait()
        channels.stop()

    runtime.spawn(stop())
    return Handlers(connection=channels.accept)


SERVICE: Final = Service("qmqpd", prepare, start, network=True)
