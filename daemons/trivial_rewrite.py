"""trivial-rewrite(8): complete addresses, and say where they go.

Called by: smtpd, cleanup, qmgr, local, bounce, over `private/rewrite`. Asks: the tables of
transport(5) and the lists of domains. Writes: nothing. Needs: the tables.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from libmail.config.interfaces import own_interfaces
from libmail.ipc.codec import WireError
from libmail.ipc.messages import (
    ResolvedMany,
    ResolveMany,
    ResolveRequest,
    RewriteReply,
    RewriteRequest,
)
from libmail.lookup.destination import LocalDomains, proxy_addresses
from libmail.lookup.resolving import AddressResolver, Tables
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import ResolveParams, RewriteParams
from libmail.service.connection import Connection
from libmail.service.skeleton import Handlers, Runtime, Service, Startup, exchanges
from libmail.tables.maps import Maps
from libmail.tables.match import DomainList, StringList
from libmail.tables.table import TableOptions

__all__ = ["SERVICE"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was opened before the jail."""

    rewriter: Rewriter
    resolver: AddressResolver


def prepare(startup: Startup) -> Prepared:
    """Read parameters, open tables."""
    params = startup.config.load(ResolveParams)
    rewriter = Rewriter(startup.config.load(RewriteParams))
    options = TableOptions.of(startup.config)

    def strings(name: str, specs: tuple[str, ...]) -> StringList:
        return StringList(name, specs, options)

    def maps(name: str, specs: tuple[str, ...]) -> Maps:
        return Maps(name, specs, options)

    tables = Tables(
        local_domains=LocalDomains(
            strings("mydestination", params.mydestination), _own_addresses(params)
        ),
        virtual_alias_domains=strings("virtual_alias_domains", params.virtual_alias_domains),
        virtual_mailbox_domains=strings("virtual_mailbox_domains", params.virtual_mailbox_domains),
        relay_domains=DomainList(
            "relay_domains",
            params.relay_domains,
            options,
            parent="relay_domains" in params.parent_domain_matches_subdomains,
        ),
        transport_maps=maps("transport_maps", params.transport_maps),
        relocated_maps=maps("relocated_maps", params.relocated_maps),
        sender_dependent_relayhost_maps=maps(
            "sender_dependent_relayhost_maps", params.sender_dependent_relayhost_maps
        ),
        sender_dependent_default_transport_maps=maps(
            "sender_dependent_default_transport_maps",
            params.sender_dependent_default_transport_maps,
        ),
    )
    return Prepared(rewriter, AddressResolver(params, tables, rewriter))


def _own_addresses(params: ResolveParams) -> list[IPv4Address | IPv6Address]:
    own = own_interfaces(params.inet_interfaces, params.inet_protocols)
    return [*(one.address for one in own), *proxy_addresses(params.proxy_interfaces)]


async def serve(prepared: Prepared, connection: Connection) -> None:
    """One client, until it goes."""
    resolver = prepared.resolver
    while True:
        message = await connection.receive()
        match message:
            case RewriteRequest(context, address):
                connection.send(RewriteReply(prepared.rewriter.rewrite(context, address)))
            case ResolveRequest(sender, address):
                connection.send(await resolver.resolve(sender, address))
            case ResolveMany(sender, addresses):
                replies = [await resolver.resolve(sender, one) for one in addresses]
                connection.send(ResolvedMany(tuple(replies)))
            case _:
                raise WireError(f"unexpected {type(message).__name__}")


async def start(prepared: Prepared, runtime: Runtime) -> Handlers:
    """Serve questions."""

    async def session(connection: Connection) -> None:
        await serve(prepared, connection)

    return Handlers(stream=exchanges(runtime, session))


SERVICE: Final = Service("trivial-rewrite", prepare, start, shared=True)
