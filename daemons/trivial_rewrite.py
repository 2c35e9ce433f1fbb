"""trivial-rewrite(8): complete addresses, and say where they go.

Called by: smtpd, cleanup, qmgr, local, bounce, over `private/rewrite`. Asks: the tables of
transport(5) and the lists of domains. Writes: nothing. Needs: the tables.
"""

from dataclasses import dataclass
from typing import Final

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
from libmail.lookup.routing_params import ResolveParams, RewriteParams
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was opened before the jail."""

    rewriter: Rewriter
    resolver: AddressResolver
    lookups: Lookups

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        """Where mail goes; what is wrong with the configuration is logged."""
        resolved = await self.resolver.resolve(self.lookups, sender, address)
        for text in resolved.warnings:
            LOG.warning(text)
        return resolved.reply


def prepare(startup: Startup) -> Prepared:
    """Read parameters, open tables."""
    params = startup.config.load(ResolveParams)
    rewriter = Rewriter(startup.config.load(RewriteParams))
    lookups = open_routing(startup.config, params)
    return Prepared(rewriter, AddressResolver(params, rewriter), lookups)


async def serve(prepared: Prepared, connection: Connection) -> None:
    """One client, until it goes."""
    while True:
        message = await connection.receive()
        match message:
            case RewriteRequest(context, address):
                connection.send(RewriteReply(prepared.rewriter.rewrite(context, address)))
            case ResolveRequest(sender, address):
                connection.send(await prepared.resolve(sender, address))
            case ResolveMany(sender, addresses):
                replies = [await prepared.resolve(sender, one) for one in addresses]
                connection.send(ResolvedMany(tuple(replies)))
            case _:
                raise WireError(f"unexpected {type(message).__name__}")


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Serve questions."""

    async def session(connection: Connection) -> None:
        await serve(prepared, connection)

    return Handlers(stream=exchanges(runtime, session))


SERVICE: Final = Service("trivial-rewrite", prepare, start, shared=True)
