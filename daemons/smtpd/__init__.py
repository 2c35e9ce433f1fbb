"""smtpd(8): takes mail by SMTP.

Called by: clients in the network; sendmail -bs through `run_standalone`. Asks: trivial-rewrite
(which address is where), cleanup (takes the message, and answers when it is on disk), DNS and the
system for the names of clients, policy servers of others. Writes: nothing itself. Tells: nobody.

Needs: its tables open before the jail; after it public/cleanup, private/rewrite and the network.
"""

from collections.abc import Coroutine
from typing import Final

from daemons.smtpd.prepared import Prepared, open_tables
from daemons.smtpd.server import Server
from daemons.smtpd.session import Session
from daemons.smtpd.standalone import run_standalone
from daemons.smtpd.verbs import VERBS
from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.config import Config
from libmail.lookup.peer import client_at
from libmail.net.channel import ClientChannel, RequestLimit
from libmail.sasl.server import uses_cyrus
from libmail.service.client_channels import ClientChannels
from libmail.service.pool import ServicePool
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "run_standalone"]


def prepare(startup: Startup) -> Prepared:
    """Read the configuration and open the tables, before the jail."""
    return open_tables(startup.config, startup.service, approved=startup.approved)


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
    return Handlers(connection=front.channels.accept, passed=front.channels.take_over)


class Front:
    """Makes a session of each connection that its `channels` take."""

    def __init__(self, server: Server, runtime: Runtime) -> None:
        self._server = server
        self._runtime = runtime
        self.channels = ClientChannels(runtime, server.params.smtpd_timeout, self._session)
        if server.tls.handshakes is not None:
            server.tls.handshakes.begin(runtime.spawn)
        runtime.spawn(self._stop())

    def _session(self, channel: ClientChannel) -> Coroutine[object, object, None]:
        session = Session(
            self._server,
            channel,
            VERBS,
            client_at(channel.ends),
            screened=channel.passed,
            said=channel.said,
            tls=channel.tls,
        )
        params = self._server.params
        if params.smtpd_per_request_deadline:
            limit = RequestLimit(params.smtpd_timeout, params.smtpd_min_data_rate)
            channel.request_limit = session.dialogue.request_limit = limit
        return session.run()  # not awaited here: a coroutine costs memory for each idle client

    async def _stop(self) -> None:
        """When the system stops: end the sessions that wait for a command."""
        await self._runtime.stopping.wait()
        self._server.stopping = True
        self.channels.stop()


def _makes_files(config: Config) -> bool:
    """Nothing is known of plug-ins of Cyrus: Kerberos, for one, keeps a replay cache.

    With speed_adjust smtpd keeps a message for the filter in a file without a name.
    """
    return uses_cyrus(config) or bool(config.list("smtpd_proxy_options"))


SERVICE: Final = Service(
    "smtpd", prepare, start, reads_approved=True, network=True, makes_files=_makes_files
)
