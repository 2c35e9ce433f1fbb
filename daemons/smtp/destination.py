"""From a next hop to the servers to try: its syntax, MX and address lookups, their order.

Asks: DNS or the system's name services. The rules are those of smtp(8), lmtp(8) and RFC 5321 §5.1.
"""

import random
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from daemons.smtp.failure import Failure
from daemons.smtp.settings import SmtpParams
from libmail.dns import (
    DnsError,
    Filtered,
    Invalid,
    NotFound,
    NullMx,
    ascii_domain,
    literal_address,
    valid_hostaddr,
    valid_hostname,
)
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Protocols, Resolver, allows
from libmail.log import LOG, Fatal
from libmail.lookup.reply_filter import ReplyFilter

__all__ = [
    "BadDestination",
    "Destination",
    "LookupFailed",
    "Lookups",
    "Server",
    "parse_destination",
    "select_servers",
    "service_port",
    "split_destinations",
]

_SEPARATORS: Final = re.compile(r"[,\s]+")


class BadDestination(ValueError):
    """The next hop is no destination; the text says why. It is an error in the configuration."""


class LookupFailed(Exception):
    """There is no server to try.

    loop: this system is an MX host of the destination. best: it is the best one.
    """

    def __init__(self, failure: Failure, *, loop: bool = False, best: bool = False) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.loop = loop
        self.best = best


@dataclass(frozen=True, slots=True)
class Destination:
    """domain, or with `bracketed` a host or address that has no MX lookup. path: of a UNIX socket,
    then nothing else counts."""

    host: str = ""
    port: int = 0
    bracketed: bool = False
    path: str = ""


class Server(NamedTuple):
    """One address of one host."""

    host: str
    address: str
    preference: int = 0

    @property
    def ipv6(self) -> bool:
        """Which protocol it takes."""
        return ":" in self.address


def split_destinations(nexthop: str) -> list[str]:
    """The destinations of a next hop, to be tried in this order."""
    return [part for part in _SEPARATORS.split(nexthop) if part]


def service_port(text: str, destination: str = "") -> int:
    """A port by number or by name in services(5). Raises BadDestination."""
    if text.isascii() and text.isdigit():
        port = int(text)
        if not 0 < port < 65536:
            raise BadDestination(f"bad network port: {text} for destination: {destination}")
        return port
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        raise BadDestination(f"unknown service: {text}/tcp") from None


@lru_cache(1024)
def parse_destination(text: str, default_port: int, *, lmtp: bool) -> Destination:
    """One destination, as in smtp(8), SMTP and LMTP DESTINATION SYNTAX. Raises BadDestination."""
    if lmtp:
        if text.startswith("unix:"):
            if text == "unix:":
                raise BadDestination(_problem("missing path of a socket", text))
            return Destination(path=text[5:])
        text = text.removeprefix("inet:")
    host, port = _host_and_port(text)
    number = service_port(port, text) if port else default_port
    if host[:5].lower() == "ipv6:":
        host = host[5:]
    if not (valid_hostaddr(host) or valid_hostname(ascii_domain(host))):
        raise BadDestination(_problem("valid hostname or network address required", text))
    # LMTP has no MX lookups, RFC 2033 §5.
    return Destination(host, number, bracketed=lmtp or text.startswith("["))


def _host_and_port(text: str) -> tuple[str, str]:
    """Of "host", "host:port", "[host]", "[host]:port"; port "" if there is none."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise BadDestination(_problem('missing "]"', text))
        if rest and not rest.startswith(":"):
            raise BadDestination(_problem('garbage after "]"', text))
        port = rest[1:]
        if port[:1].isdigit() and not port.isdigit():
            raise BadDestination(_problem("garbage after numerical service", text))
        return host, port
    if valid_hostaddr(text):
        return text, ""
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, ""
    if not host:
        raise BadDestination(_problem("missing host information", text))
    return host, port


def _problem(what: str, text: str) -> str:
    return f"{what} in server description: {text}"


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


class Lookups:
    """Finds the servers of a destination. Made before the jail."""

    def __init__(
        self,
        params: SmtpParams,
        protocols: Protocols,
        own: frozenset[str],
        reply_filter: ReplyFilter | None = None,
    ) -> None:
        """own: addresses at which this system receives mail, for loop detection."""
        self._params = params
        self._protocols = protocols
        self._own = own
        self._shuffle = random.Random()
        disabled = params.disable_dns_lookups or params.smtp_dns_support_level == "disabled"
        methods = params.smtp_host_lookup
        for method in methods:
            if method not in ("dns", "native"):
                raise Fatal(f'invalid smtp_host_lookup: "{method}"')
        self._methods = [m for m in methods if m == "native" or not disabled] or ["native"]
        self._mx = not disabled
        self._resolver = Resolver(
            dnssec=params.smtp_dns_support_level == "dnssec", reply_filter=reply_filter
        )
        self._native = NativeResolver() if "native" in self._methods else None

    async def servers(
        self, destination: Destination, *, loop_detect: bool
    ) -> tuple[list[Server], bool]:
        """In the order to try them, and whether this system is among the MX hosts.

        loop_detect: this system listens on that port. Raises LookupFailed.
        """
        if destination.bracketed or not self._mx or _literal(destination.host):
            found, among = await self._host(destination.host, 0), False
            self._refuse_self(destination, found, loop_detect)
        else:
            found, among = await self._domain(destination, loop_detect)
        params = self._params
        servers = select_servers(
            found,
            preference=params.smtp_address_preference,
            randomize=params.smtp_randomize_addresses,
            balance=params.smtp_balance_inet_protocols and self._protocols == "all",
            limit=params.smtp_mx_address_limit,
            shuffle=self._shuffle,
        )
        return servers, among

    def _refuse_self(
        self, destination: Destination, found: list[Server], loop_detect: bool
    ) -> None:
        if loop_detect and any(server.address in self._own for server in found):
            raise _loop(destination.host)

    async def _domain(
        self, destination: Destination, loop_detect: bool
    ) -> tuple[list[Server], bool]:
        domain = destination.host
        try:
            answer = await self._resolver.mx(domain)
        except NullMx as error:
            raise LookupFailed(Failure("5.1.0", error.text, site=True)) from error
        except NotFound:
            found = await self._host(domain, 0)
            self._refuse_self(destination, found, loop_detect)
            return found, False
        except DnsError as error:
            if not self._params.ignore_mx_lookup_error:
                raise LookupFailed(_dns_failure(error, mx=True)) from error
            found = await self._host(domain, 0)
            self._refuse_self(destination, found, loop_detect)
            return found, False
        found = []
        why: LookupFailed | None = None
        for record in answer.records:
            try:
                found += await self._host(record.value, record.preference)
            except LookupFailed as error:
                why = error
        if not found:
            LOG.warning(f"no MX host for {domain} has a valid address record")
            failure = why.failure if why else Failure("4.4.4", "no MX host found", site=True)
            if self._params.smtp_defer_if_no_mx_address_found and not failure.temporary:
                failure = Failure(f"4{failure.dsn[1:]}", failure.reason, site=True)
            raise LookupFailed(failure)
        return self._without_self(domain, answer.records[0].preference, found, loop_detect)

    def _without_self(
        self, domain: str, best: int, found: list[Server], loop_detect: bool
    ) -> tuple[list[Server], bool]:
        """Only MX hosts that are better than this system, if it is one of them, RFC 5321 §5.1."""
        if not loop_detect:
            return found, False
        mine = [server.preference for server in found if server.address in self._own]
        if not mine:
            return found, False
        better = [server for server in found if server.preference < min(mine)]
        if better:
            return better, True
        if min(mine) > best:
            text = f"unable to find primary relay for {domain}"
            raise LookupFailed(Failure("4.4.4", text, site=True), loop=True)
        raise _loop(domain)

    async def _host(self, host: str, preference: int) -> list[Server]:
        address = _literal(host)
        if address and allows(self._protocols, address):
            return [Server(host, address, preference)]
        why: LookupFailed | None = None
        for method in self._methods:
            try:
                addresses = await self._addresses(host, method)
            except DnsError as error:
                why = LookupFailed(_dns_failure(error, native=method == "native"))
            else:
                return [Server(host, address, preference) for address in addresses]
        raise why or LookupFailed(Failure("4.4.3", f"unable to look up host {host}", site=True))

    async def _addresses(self, host: str, method: str) -> Sequence[str]:
        if method == "native" and self._native is not None:
            return await self._native.addresses(host, self._protocols)
        records = await self._resolver.addresses(host, self._protocols)
        return [record.value for record in records]


@lru_cache(1024)
def _literal(host: str) -> str:
    """The address, if the host is one."""
    return host if valid_hostaddr(host) else literal_address(f"[{host}]") or ""


def _loop(name: str) -> LookupFailed:
    text = f"mail for {name} loops back to myself"
    return LookupFailed(Failure("5.4.6", text, site=True), loop=True, best=True)


def _dns_failure(error: DnsError, *, mx: bool = False, native: bool = False) -> Failure:
    if isinstance(error, NotFound):
        return Failure("5.4.4", error.text, site=True)
    if isinstance(error, Filtered):
        return Failure("4.7.0", error.text, site=True)
    if isinstance(error, Invalid):
        dsn = "5.3.0" if native else "5.4.4" if mx else "5.4.3"
        return Failure(dsn, error.text, site=True)
    return Failure("4.4.3", error.text, site=True)
