"""The name of a client: looked up by its address, and believed if it leads back there.

Called by smtpd and qmqpd.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from libmail.dns.answers import DnsError, NotFound
from libmail.dns.hostname import valid_hostaddr, valid_hostname
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Protocols
from libmail.log import LOG, Level
from libmail.log.events import HostnameMismatch
from libmail.lookup.facts import Client, NameStatus
from libmail.net.cache import ExpiringCache
from libmail.net.ends import Ends, plain_address

__all__ = ["Peer", "PeerNames", "client_at", "protocols_of"]

UNKNOWN: Final = "unknown"
_CACHE_SIZE: Final = 5000
_CACHE_LIFE: Final = 5.0


def protocols_of(inet_protocols: Sequence[str]) -> Protocols:
    """The kinds of addresses that a client can have."""
    match [word.lower() for word in inet_protocols]:
        case ["ipv4"]:
            return "ipv4"
        case ["ipv6"]:
            return "ipv6"
    return "all"


def client_at(ends: Ends) -> Client:
    """The client of a connection; its names are not known yet."""
    return Client(
        ends.client_address,
        ends.client_port,
        server_address=ends.server_address,
        server_port=ends.server_port,
    )


class Peer(NamedTuple):
    """What `Client` has of it. name: verified. reverse_name: what the address leads to."""

    name: str
    reverse_name: str
    name_status: NameStatus
    reverse_status: NameStatus


_NAMELESS: Final = Peer(UNKNOWN, UNKNOWN, NameStatus.NOT_FOUND, NameStatus.NOT_FOUND)


class PeerNames:
    """Looks names up, and remembers them for some seconds.

    local: the name of every client; for a local user's smtpd.
    """

    def __init__(
        self, resolver: NativeResolver, protocols: Protocols, *, lookup: bool, local: str = ""
    ) -> None:
        """lookup: smtpd_peername_lookup."""
        self._local = local
        self._protocols = protocols
        self._resolver = resolver
        self._lookup = lookup
        self._peers: ExpiringCache[str, Peer] = ExpiringCache(_CACHE_SIZE, _CACHE_LIFE)

    async def named(self, client: Client) -> Client:
        """A client with what its address leads to; failures are told in the result, and logged."""
        if self._local:
            return client._replace(name=self._local, reverse_name=self._local)
        if not self._lookup:
            return client._replace(name_status=NameStatus.NOT_FOUND,
                                   reverse_status=NameStatus.NOT_FOUND)  # fmt: skip
        peer = self._peers.get(client.address) or await self.find(client.address)
        server = client.server_address, client.server_port
        return Client(client.address, client.port, *peer, *server)

    async def find(self, address: str) -> Peer:
        """What an address leads to; remembered unless it may be known a moment later."""
        peer = await self._find(address)
        if peer.name_status is not NameStatus.TRY_AGAIN:
            self._peers.put(address, peer)
        return peer

    async def _find(self, address: str) -> Peer:
        try:
            name = await self._resolver.name(address)
        except NotFound:
            return _NAMELESS
        except DnsError:
            return Peer(UNKNOWN, UNKNOWN, NameStatus.TRY_AGAIN, NameStatus.TRY_AGAIN)
        if valid_hostaddr(name):
            LOG.warning(f"numeric hostname: {name}")
            return _NAMELESS
        if not valid_hostname(name):
            return _NAMELESS
        return await self._verify(address, name)

    async def _verify(self, address: str, name: str) -> Peer:
        """Whether the name leads back to the address."""
        try:
            addresses = await self._resolver.addresses(name, self._protocols)
        except DnsError as err:
            reason = err.text.rpartition(": ")[2]
            LOG.event(HostnameMismatch(name, address, reason), Level.WARNING)
            status = NameStatus.NOT_FOUND if isinstance(err, NotFound) else NameStatus.TRY_AGAIN
            return Peer(UNKNOWN, name, status, NameStatus.OK)
        if address not in map(plain_address, addresses):
            LOG.event(HostnameMismatch(name, address), Level.WARNING)
            return Peer(UNKNOWN, name, NameStatus.FORGED, NameStatus.OK)
        return Peer(name, name, NameStatus.OK, NameStatus.OK)
