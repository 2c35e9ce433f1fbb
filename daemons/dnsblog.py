"""dnsblog(8): is a client on this DNS list?

called by: postscreen (libmail/clients/dnsblog.py). asks: DNS. writes: nothing. tells: nobody.
needs: resolv.conf before the jail.

Each list is answered as soon as it is known: a slow one holds up nobody but itself.

Some lists tell who asks through a public resolver, or too often, so by an answer in
127.255.255.0/24. That says nothing about the client, so it is a warning and no listing.
"""

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from libmail.dns.answers import DnsError, NotFound
from libmail.dns.resolver import Resolver
from libmail.ipc.codec import WireError
from libmail.ipc.messages import DnsListAnswer, DnsListQuery
from libmail.log import LOG
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.skeleton import Handlers, Runtime, Service, Startup

__all__ = ["SERVICE", "DnsLists", "DnsblogParams"]

_MOST_DOMAINS: Final = 1000
_MOST_ADDRESSES: Final = 100  # of an answer; lists have some, a hostile one as many as fit
_REMEMBERED: Final = 500  # answers; connections from one address share a lookup in any case
_REFUSALS: Final = "127.255.255."


@dataclass(frozen=True, slots=True)
class DnsblogParams:
    """Times in seconds."""

    dnsblog_reply_delay: float


class DnsLists:
    """Answers questions. resolver: asks DNS. delay: seconds before each answer."""

    def __init__(self, resolver: Resolver, delay: float) -> None:
        self._resolver = resolver
        self._delay = delay

    async def serve(self, connection: Connection) -> None:
        """Exchanges on one connection."""
        while True:
            query = await connection.receive_as(DnsListQuery)
            reverse = _reversed(query.address)
            if len(query.domains) > _MOST_DOMAINS:
                raise WireError("too many domains")
            lookups = [
                asyncio.ensure_future(self.ask(query.address, reverse, domain))
                for domain in query.domains
            ]
            try:
                for answer in asyncio.as_completed(lookups):
                    connection.send(await answer)
            finally:
                for lookup in lookups:
                    lookup.cancel()

    async def ask(self, address: str, reverse: str, domain: str) -> DnsListAnswer:
        """What one list says of a client. reverse: the address as in names of DNS lists."""
        name = f"{reverse}.{domain}"
        if self._delay:
            await asyncio.sleep(self._delay)
        try:
            answer = await self._resolver.lookup(name, "A")
        except NotFound:
            return DnsListAnswer(domain, -1, ())
        except DnsError as error:
            LOG.warning(f"dnsblog_query: lookup error for DNS query {name}: {error.text}")
            return DnsListAnswer(domain, 0, ())
        listed = [record.value for record in answer.records if record.rrtype == "A"]
        del listed[_MOST_ADDRESSES:]
        found = [value for value in listed if not value.startswith(_REFUSALS)]
        if len(found) < len(listed):
            LOG.seldom(
                f"DNS list {domain} refuses to answer us",
                f": {name} has the address {_REFUSALS}*; it counts as no answer",
            )
        for value in found:
            LOG.info(f"addr {address} listed by domain {domain} as {value}")
        return DnsListAnswer(domain, answer.ttl, tuple(found))


def _reversed(address: str) -> str:
    """ "192.0.2.1" as "1.2.0.192", and so the digits of IPv6. Raises WireError."""
    try:
        pointer = ip_address(address.partition("%")[0]).reverse_pointer
    except ValueError as error:
        raise WireError(f"no address: {address[:80]!r}") from error
    return pointer.rpartition(".")[0].rpartition(".")[0]


def _prepare(startup: Startup) -> DnsLists:
    return DnsLists(
        Resolver(cache_size=_REMEMBERED), startup.config.load(DnsblogParams).dnsblog_reply_delay
    )


async def _start(lists: DnsLists, runtime: Runtime) -> Handlers:
    return Handlers(stream=exchanges(runtime, lists.serve, network=True))


SERVICE: Final = Service("dnsblog", _prepare, _start, network=True)
