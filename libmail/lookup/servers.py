"""From a destination to the servers to try: SRV, MX and address lookups, and their order.

A decision over the lookup context: name services, and chance among equals. The rules are those of
smtp(8), lmtp(8) and RFC 5321 §5.1.
"""

import asyncio
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from libmail.dns import (
    DnsAnswer,
    DnsError,
    DnsRecord,
    Filtered,
    Invalid,
    NotFound,
    TempFail,
    ascii_domain,
    literal_address,
    valid_hostaddr,
)
from libmail.dns.answers import is_null_mx
from libmail.dns.resolver import Protocols, allows
from libmail.log import Fatal
from libmail.lookup.context import LookupFailure, Lookups
from libmail.lookup.next_hop import Destination
from libmail.lookup.service_records import in_order, is_unavailable, service_name

__all__ = ["NoServers", "Server", "ServerChoice", "ServerParams", "Servers", "select_servers"]


class ServerParams(Protocol):
    """The parameters that say how servers are found, see postconf(5)."""

    @property
    def allow_srv_lookup_fallback(self) -> bool:
        """A domain without SRV records, or whose lookup fails, is as without use_srv_lookup."""

    @property
    def disable_dns_lookups(self) -> bool:
        """Without DNS there are no MX hosts."""

    @property
    def ignore_mx_lookup_error(self) -> bool:
        """A domain whose MX lookup fails is its own host."""

    @property
    def ignore_srv_lookup_error(self) -> bool:
        """A domain whose SRV lookup fails is as without use_srv_lookup."""

    @property
    def smtp_address_preference(self) -> str:
        """Which protocol comes first: any, ipv4, ipv6."""

    @property
    def smtp_balance_inet_protocols(self) -> bool:
        """Some servers of each protocol are tried."""

    @property
    def smtp_cname_overrides_servername(self) -> bool:
        """A server is known by the name at the end of its CNAME records."""

    @property
    def smtp_defer_if_no_mx_address_found(self) -> bool:
        """MX hosts without addresses may have some later."""

    @property
    def smtp_dns_support_level(self) -> str:
        """disabled, enabled, dnssec."""

    @property
    def smtp_host_lookup(self) -> Sequence[str]:
        """Name services: dns, native."""

    @property
    def smtp_mx_address_limit(self) -> int:
        """How many addresses are tried; 0 for all."""

    @property
    def smtp_randomize_addresses(self) -> bool:
        """Chance decides among equals."""

    @property
    def use_srv_lookup(self) -> Sequence[str]:
        """Services whose servers are found by SRV records; the list is asked through lookups."""


class NoServers(Exception):
    """There is no server to try; dsn, reason: for the report. warnings: to be logged.

    loop: this system is an MX host of the destination. best: it is the best one.
    """

    def __init__(
        self,
        dsn: str,
        reason: str,
        *,
        loop: bool = False,
        best: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        super().__init__(reason)
        self.dsn = dsn
        self.reason = reason
        self.loop = loop
        self.best = best
        self.warnings = warnings


class Server(NamedTuple):
    """One address of one host.

    What DNSSEC vouches for, if that is asked for: secure: the address, and the way to it; final:
    the name at the end of CNAME records, "" where it is not from DNS; mx_secure: the MX record,
    or the SRV record, None if the host was not found by one. port: of an SRV record, 0 for that of
    the destination.
    """

    host: str
    address: str
    preference: int = 0
    secure: bool = False
    final: str = ""
    mx_secure: bool | None = None
    port: int = 0

    @property
    def ipv6(self) -> bool:
        """Which protocol it takes."""
        return ":" in self.address


class Servers(NamedTuple):
    """The servers to try, in that order; among_mx: this system is one of the MX hosts."""

    servers: list[Server]
    among_mx: bool


def select_servers(
    found: Sequence[Server],
    *,
    preference: str,
    randomize: bool,
    balance: bool,
    limit: int,
    shuffle: random.Random,
) -> list[Server]:
    """The order in which servers are tried, and which of them.

    preference: of the protocol among servers of equal rank, "any", "ipv4", "ipv6". balance: among
    `limit` servers be some of both protocols. limit: 0 for none.
    """
    servers = list(found)
    if randomize and len(servers) > 1:
        shuffle.shuffle(servers)
    if preference == "any":
        servers.sort(key=lambda server: server.preference)
    else:
        wanted = preference == "ipv6"
        servers.sort(key=lambda server: (server.preference, server.ipv6 is not wanted))
    if not limit or len(servers) <= limit:
        return servers
    if balance and limit > 1:
        return _balanced(servers, limit)
    return servers[:limit]


def _balanced(servers: list[Server], limit: int) -> list[Server]:
    """The first `limit` servers; half of them are of the rarer protocol, if there are as many."""
    six = sum(server.ipv6 for server in servers)
    four = len(servers) - six
    target_six = min(six, max(limit // 2, limit - four))
    left = {True: target_six, False: limit - target_six}
    chosen = []
    for server in servers:
        if left[server.ipv6]:
            left[server.ipv6] -= 1
            chosen.append(server)
    return chosen


class ServerChoice:
    """Finds the servers of destinations."""

    def __init__(
        self,
        params: ServerParams,
        protocols: Protocols,
        own: frozenset[str],
        *,
        service: str = "smtp",
        lmtp: bool = False,
    ) -> None:
        """own: addresses at which this system receives mail, for loop detection.

        service: of a destination that names none. lmtp: there are no MX hosts, RFC 2033 §5. Raises
        Fatal.
        """
        self._params = params
        self._protocols = protocols
        self._own = own
        disabled = params.disable_dns_lookups or params.smtp_dns_support_level == "disabled"
        for method in params.smtp_host_lookup:
            if method not in ("dns", "native"):
                raise Fatal(f'invalid smtp_host_lookup: "{method}"')
        methods = [m for m in params.smtp_host_lookup if m == "native" or not disabled]
        self._methods: Final = methods or ["native"]
        self._mx = not (disabled or lmtp)
        self._srv = bool(params.use_srv_lookup) and not disabled
        self._service = service

    @property
    def uses_native(self) -> bool:
        """Whether the system's name services are asked."""
        return "native" in self._methods

    async def servers(
        self, lookups: Lookups, destination: Destination, *, loop_detect: bool
    ) -> Servers:
        """loop_detect: this system listens on that port. Raises NoServers."""
        own_port = destination.port if loop_detect else 0
        if destination.bracketed or _literal(destination.host):
            found, among = await self._itself(lookups, destination.host, own_port)
        elif self._srv and await self._has_srv(lookups, destination):
            found, among = await self._of_service(lookups, destination, own_port)
        else:
            found, among = await self._without_srv(lookups, destination.host, own_port)
        params = self._params
        randomize = params.smtp_randomize_addresses and len(found) > 1
        servers = select_servers(
            found,
            preference=params.smtp_address_preference,
            randomize=randomize,
            balance=params.smtp_balance_inet_protocols and self._protocols == "all",
            limit=params.smtp_mx_address_limit,
            shuffle=random.Random(lookups.seed()) if randomize else _NO_CHANCE,
        )
        return Servers(servers, among)

    # a host

    async def _itself(self, lookups: Lookups, host: str, own_port: int) -> Servers:
        found = await self._host(lookups, host, 0)
        if own_port and any(server.address in self._own for server in found):
            raise _loop(host)
        return Servers(found, False)

    # SRV records

    async def _has_srv(self, lookups: Lookups, destination: Destination) -> bool:
        service = destination.service or self._service
        try:
            return await lookups.in_list("use_srv_lookup", service)
        except LookupFailure as error:
            raise NoServers("4.3.5", "Server configuration error", warnings=(str(error),)) from None

    async def _of_service(
        self, lookups: Lookups, destination: Destination, own_port: int
    ) -> Servers:
        domain = destination.host
        name = service_name(destination.service or self._service, ascii_domain(domain))
        try:
            answer = await lookups.dns(name, "SRV")
        except DnsError as error:
            if self._does_without(error):
                return await self._without_srv(lookups, domain, own_port)
            raise _failed(error, mx=True) from error
        if is_unavailable(answer.records):
            raise NoServers("5.1.0", f"Domain {domain} does not have the service (SRV {name})")
        equals = len({record.preference for record in answer.records}) < len(answer.records)
        chance = random.Random(lookups.seed()) if equals else _NO_CHANCE
        records = in_order(answer.records, chance)
        warning = f"no SRV host for {name} has a valid address record"
        found = await self._hosts(lookups, records, answer.validated, warning)
        servers, among = self._without_self(domain, records[0].preference, found, own_port)
        return Servers(_ranked(servers), among)

    def _does_without(self, error: DnsError) -> bool:
        """Whether a lookup without result leaves the servers to MX and address records."""
        if self._params.allow_srv_lookup_fallback:
            return True
        return self._params.ignore_srv_lookup_error and not isinstance(error, NotFound)

    # MX records

    async def _without_srv(self, lookups: Lookups, domain: str, own_port: int) -> Servers:
        if not self._mx:
            return await self._itself(lookups, domain, own_port)
        try:
            answer = await lookups.dns(domain, "MX")
        except DnsError as error:
            if not isinstance(error, NotFound) and not self._params.ignore_mx_lookup_error:
                raise _failed(error, mx=True) from error
            return await self._itself(lookups, domain, own_port)
        if is_null_mx(answer.records):
            raise NoServers("5.1.0", f"Domain {domain} does not accept mail (nullMX)")
        warning = f"no MX host for {domain} has a valid address record"
        found = await self._hosts(lookups, answer.records, answer.validated, warning)
        return self._without_self(domain, answer.records[0].preference, found, own_port)

    async def _hosts(
        self, lookups: Lookups, records: Sequence[DnsRecord], validated: bool, warning: str
    ) -> list[Server]:
        """The addresses of the hosts that MX or SRV records name. Raises NoServers."""
        found: list[Server] = []
        why: NoServers | None = None
        for record in records:
            try:
                hosts = await self._host(lookups, record.value, record.preference)
                found += [host._replace(mx_secure=validated, port=record.port) for host in hosts]
            except NoServers as error:
                why = error
        if found:
            return found
        dsn, reason = (why.dsn, why.reason) if why else ("4.4.4", "no MX host found")
        if self._params.smtp_defer_if_no_mx_address_found:
            dsn = f"4{dsn[1:]}"
        raise NoServers(dsn, reason, warnings=(warning,))

    def _without_self(self, domain: str, best: int, found: list[Server], own_port: int) -> Servers:
        """Only MX hosts that are better than this system, if it is one of them, RFC 5321 §5.1.

        own_port: of the destination, if this system listens there; else 0.
        """
        mine = [
            server.preference
            for server in found
            if server.address in self._own and server.port in (0, own_port)
        ]
        if not own_port or not mine:
            return Servers(found, False)
        better = [server for server in found if server.preference < min(mine)]
        if better:
            return Servers(better, True)
        if min(mine) > best:
            raise NoServers("4.4.4", f"unable to find primary relay for {domain}", loop=True)
        raise _loop(domain)

    async def _host(self, lookups: Lookups, host: str, preference: int) -> list[Server]:
        address = _literal(host)
        if address and allows(self._protocols, address):
            return [Server(host, address, preference)]
        why: NoServers | None = None
        for method in self._methods:
            try:
                if method == "native":
                    addresses = await lookups.system_addresses(host, self._protocols)
                    return [Server(host, address, preference) for address in addresses]
                answers = await _dns_addresses(lookups, host, self._protocols)
            except DnsError as error:
                why = _failed(error, native=method == "native")
            else:
                by_alias = self._params.smtp_cname_overrides_servername
                return [
                    Server(
                        answer.final if by_alias else host,
                        record.value,
                        preference,
                        answer.validated,
                        answer.final,
                    )
                    for answer in answers
                    for record in answer.records
                ]
        raise why or NoServers("4.4.3", f"unable to look up host {host}")


_NO_CHANCE: Final = random.Random(0)  # for a single server; never asked


def _ranked(servers: Sequence[Server]) -> list[Server]:
    """Servers of SRV records, each target with a preference of its own: the order is settled."""
    targets = [(server.preference, server.host, server.port) for server in servers]
    ranks = {target: rank for rank, target in enumerate(dict.fromkeys(targets))}
    return [
        server._replace(preference=ranks[target])
        for server, target in zip(servers, targets, strict=True)
    ]


async def _dns_addresses(lookups: Lookups, host: str, protocols: Protocols) -> list[DnsAnswer]:
    """Records of both types, one is enough. Raises DnsError, what may be mended first."""
    if valid_hostaddr(host):
        raise NotFound(host, "A", f"Name service error for {host}: invalid host or domain name", 3)
    types = {"all": ("A", "AAAA"), "ipv4": ("A",), "ipv6": ("AAAA",)}[protocols]
    if len(types) == 1:
        return [await lookups.dns(host, types[0])]
    results = await asyncio.gather(*(_or_error(lookups, host, rrtype) for rrtype in types))
    found = [result for result in results if isinstance(result, DnsAnswer)]
    if found:
        return found
    errors = [result for result in results if isinstance(result, DnsError)]
    raise ([error for error in errors if isinstance(error, TempFail | Filtered)] or errors)[-1]


async def _or_error(lookups: Lookups, host: str, rrtype: str) -> DnsAnswer | DnsError:
    try:
        return await lookups.dns(host, rrtype)
    except DnsError as error:
        return error


@lru_cache(1024)
def _literal(host: str) -> str:
    """The address, if the host is one."""
    return host if valid_hostaddr(host) else literal_address(f"[{host}]") or ""


def _loop(name: str) -> NoServers:
    return NoServers("5.4.6", f"mail for {name} loops back to myself", loop=True, best=True)


def _failed(error: DnsError, *, mx: bool = False, native: bool = False) -> NoServers:
    if isinstance(error, NotFound):
        return NoServers("5.4.4", error.text)
    if isinstance(error, Filtered):
        return NoServers("4.7.0", error.text)
    if isinstance(error, Invalid):
        return NoServers("5.3.0" if native else "5.4.4" if mx else "5.4.3", error.text)
    return NoServers("4.4.3", error.text)
