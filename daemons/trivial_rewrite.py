"""trivial-rewrite(8): complete addresses, and say where they go.

Called by: smtpd, cleanup, qmgr, local, bounce, over `private/rewrite`. Asks: the tables of
transport(5) and the lists of domains. Writes: nothing. Needs: the tables.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from libmail.config import Config
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    ResolvedMany,
    ResolveMany,
    ResolveReply,
    ResolveRequest,
    RewriteReply,
    RewriteRequest,
)
from libmail.log import LOG
from libmail.lookup.context import Lookups
from libmail.lookup.opened import open_routing
from libmail.lookup.resolving import AddressResolver
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import ResolveParams, RewriteParams, config_of_probes
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]


class Routing(NamedTuple):
    """How addresses are resolved."""

    resolver: AddressResolver
    lookups: Lookups


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was opened before the jail. usual, probes: for mail, and for probes of verify(8)."""

    rewriter: Rewriter
    usual: Routing
    probes: Routing

    async def resolve(self, sender: str, address: str, *, probe: bool = False) -> ResolveReply:
        """Where mail goes; what is wrong with the configuration is logged."""
        routing = self.probes if probe else self.usual
        resolved = await routing.resolver.resolve(routing.lookups, sender, address)
        for text in resolved.warnings:
            LOG.warning(text)
        return resolved.reply


def prepare(startup: Startup) -> Prepared:
    """Read parameters, open tables."""
    config = startup.config
    rewriter = Rewriter(config.load(RewriteParams))

    def opened(config: Config) -> Routing:
        params = config.load(ResolveParams)
        return Routing(AddressResolver(params, rewriter), open_routing(config, params))

    usual, other = opened(config), config_of_probes(config)
    return Prepared(rewriter, usual, usual if other is None else opened(other))


async def serve(prepared: Prepared, connection: Connection) -> None:
    """One client, until it goes."""
    while True:
        message = await connection.receive()
        match message:
            case RewriteRequest(context, address):
                connection.send(RewriteReply(prepared.rewriter.rewrite(context, address)))
            case ResolveRequest(sender, address, probe):
                connection.send(await prepared.resolve(sender, address, probe=probe))
            case ResolveMany(sender, addresses):
                replies = [await prepared.resolve(sender, one) for one in addresses]
                connection.send(ResolvedMany(tuple(replies)))
            case _:
                raise WireError(f"unexpected {type(message).__name__}")


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Serve questions."""

    async def session(connection: Connection) -> None:
        await serve(prepared, connection)

    return Handlers(stream=exchanges(runtime, session, network=True))


SERVICE: Final = Service("trivial-rewrite", prepare, start, shared=True)
