"""The DNS resolver: MX, address and other records for daemons that run on asyncio.

Needs: resolv.conf at construction, which is before the jail; after that only sockets.
Called by smtp (destinations) and smtpd (client names, restrictions).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from ipaddress import ip_address
from pkgutil import iter_modules
from typing import Final, Literal, NamedTuple, Protocol

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY
import dns.rdtypes.IN
import dns.resolver
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from libmail.dns.answers import (
    DnsAnswer,
    DnsError,
    DnsRecord,
    Filtered,
    Invalid,
    NotFound,
    NullMx,
    TempFail,
    is_null_mx,
)
from libmail.dns.hostname import ascii_domain, valid_hostaddr, valid_hostname
from libmail.dns.records import answer_of, error_text, malformed, name_text
from libmail.log import LOG, Fatal
from libmail.net.cache import ExpiringCache

__all__ = [
    "AnswerFilter",
    "Protocols",
    "Resolver",
    "ResolverTimes",
    "SearchOptions",
    "allows",
    "read_times",
    "search_options",
]

Protocols = Literal["all", "ipv4", "ipv6"]

_LATE_MODULES: Final = (
    "concurrent.futures.thread",
    "dns._asyncio_backend",
    "dns.asyncquery",
    "dns.edns",
    "encodings.idna",
    "encodings.punycode",
)


def _preload() -> None:
    """Import what lookups would import later, behind the jail: also the type of every record.

    Runs once, when this module is imported, so that forked processes share the memory.
    """
    for module in _LATE_MODULES:
        import_module(module)
    for package in (dns.rdtypes.ANY, dns.rdtypes.IN):
        for found in iter_modules(package.__path__, f"{package.__name__}."):
            import_module(found.name)
    # An OPT record has a size where others have a class: look types up now, in no class of theirs.
    look_up: Callable[[RdataClass, RdataType], object] = dns.rdata.get_rdata_class
    for rdtype in RdataType:
        look_up(RdataClass.IN, rdtype)
    # Newer versions can be told that there is nothing more to find.
    load_all_types: object = getattr(dns.rdata, "load_all_types", None)
    if callable(load_all_types):
        load_all_types()


_preload()

_TIMES: Final = re.compile(r"\b(timeout|attempts):([0-9]{1,3})", re.ASCII)
_MAX_CHAIN: Final = 10  # CNAME records that are followed
_NEGATIVE_LIFE: Final = 5.0  # seconds
_PAYLOAD: Final = 1232  # octets of a UDP reply, below any usual path MTU

_NOT_FOUND: Final = "Host not found"
_TRY_AGAIN: Final = "Host not found, try again"
_NO_RECOVERY: Final = "Non-recoverable error"
_NO_DATA: Final = "Host found but no data record of requested type"


class AnswerFilter(Protocol):
    """Overlooks records: `libmail.lookup.reply_filter`."""

    async def apply(self, answer: DnsAnswer) -> DnsAnswer | Filtered | TempFail:
        """The answer without them, or an error in its place."""


@dataclass(frozen=True, slots=True)
class ResolverTimes:
    """Time limits of resolv.conf(5): seconds a query, and attempts a server."""

    timeout: float = 5.0
    attempts: int = 2


def read_times(text: str) -> ResolverTimes:
    """Take the options timeout:N (1 to 30) and attempts:N (1 to 5) from a resolv.conf."""
    options = " ".join(re.findall(r"(?m)^options[ \t](.*)", text))
    found = {name: int(digits) for name, digits in _TIMES.findall(options)}
    return ResolverTimes(
        timeout=float(min(max(found.get("timeout", 5), 1), 30)),
        attempts=min(max(found.get("attempts", 2), 1), 5),
    )


class SearchOptions(NamedTuple):
    """What else a name may mean. own_domain: without a dot, one in the domain of this machine;
    parents: one in any domain of the search list of resolv.conf(5)."""

    own_domain: bool = False
    parents: bool = False


_EXACTLY: Final = SearchOptions()


def search_options(title: str, words: Sequence[str]) -> SearchOptions:
    """Read smtp_dns_resolver_options (title) or its sister. Raises Fatal."""
    for word in words:
        if word not in ("res_defnames", "res_dnsrch"):
            raise Fatal(f'unknown {title} value "{word}"')
    return SearchOptions("res_defnames" in words, "res_dnsrch" in words)


class Resolver:
    """Asks the name servers of resolv.conf; remembers answers for some seconds."""

    def __init__(
        self,
        resolv_conf: str = "/etc/resolv.conf",
        *,
        dnssec: bool = False,
        probe: str = "",
        reply_filter: AnswerFilter | None = None,
        search: SearchOptions = _EXACTLY,
        cache_size: int = 5000,
        cache_life: float = 30.0,
    ) -> None:
        """Read the configuration.

        A missing file means a name server on this host, as for the C library.
        dnssec: ask for validation.  probe: dnssec_probe, "type:name" of what is asked for once if
        no answer is validated, to warn if that is not either.  reply_filter: for all answers.
        search: which names are tried beside the one that is asked for. cache_life: seconds an
        answer is used at most.
        """
        self._filter = reply_filter or None
        self._probe = probe if dnssec else ""
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._resolver = _configured(resolv_conf)
        self._search = search
        self._domains = _search_list(self._resolver)
        self._resolver.search = []
        if dnssec:
            self._resolver.use_edns(0, dns.flags.DO, _PAYLOAD)
            self._resolver.flags = dns.flags.RD | dns.flags.AD
        else:
            self._resolver.use_edns(0, 0, _PAYLOAD)
        self._answers: ExpiringCache[tuple[str, str], DnsAnswer | DnsError] = ExpiringCache(
            cache_size, cache_life
        )

    def use_port(self, port: int) -> None:
        """Ask the name servers on another port than 53."""
        self._resolver.port = port

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        """Return the records of a name, following CNAME records.

        name: host or domain, ASCII or Unicode.  rrtype: "MX", "A", "TXT"...
        Raises `NotFound`, `TempFail`, `Filtered`, `Invalid`.
        """
        key = (name, rrtype)
        known = self._answers.get(key)
        if known is None:
            known = await self._ask(name, rrtype)
            if self._probe and isinstance(known, DnsAnswer):
                await self._see_validation(known)
            if self._filter is not None and isinstance(known, DnsAnswer):
                known = await self._filter.apply(known)
            if isinstance(known, DnsAnswer):
                self._answers.put(key, known, known.ttl)
            elif not isinstance(known, TempFail):
                self._answers.put(key, known, _NEGATIVE_LIFE)
        if isinstance(known, DnsError):
            raise known.again()
        return known

    async def _see_validation(self, answer: DnsAnswer) -> None:
        """Warn, once, if nothing is validated: DANE would be of no use then."""
        probe, self._probe = self._probe, ""
        if answer.validated:
            return
        rrtype, _, name = probe.partition(":")
        why = "received a response that is not DNSSEC validated"
        try:
            reply = await self._query(name, rrtype)
            if reply.response.flags & dns.flags.AD:
                return
        except NotFound:
            pass
        except DnsError as error:
            why = f"received no response: {error.text}"
        LOG.warning("DNSSEC validation may be unavailable")
        LOG.warning(f"reason: dnssec_probe '{probe}' {why}")

    async def _ask(self, name: str, rrtype: str) -> DnsAnswer | DnsError:
        ascii_name = ascii_domain(name)
        if not (valid_hostname(ascii_name, wildcard=True) or valid_hostaddr(ascii_name)):
            return _no_name(name, rrtype)
        known = await self._follow(name, ascii_name, rrtype)
        if self._search != _EXACTLY and rrtype != "TLSA" and not name.endswith("."):
            return await self._search_on(name, ascii_name, rrtype, known)
        return known

    async def _search_on(
        self, name: str, ascii_name: str, rrtype: str, exactly: DnsAnswer | DnsError
    ) -> DnsAnswer | DnsError:
        """What the name means, by resolv.conf(5), "search" and "ndots"."""
        dots = ascii_name.count(".")
        if not isinstance(exactly, NotFound) and dots >= (self._resolver.ndots or 1):
            return exactly
        search = self._search
        domains = self._domains if search.parents else self._domains[:1]
        for domain in domains if (search.parents if dots else search.own_domain) else ():
            found = await self._follow(name, f"{ascii_name}.{domain}", rrtype)
            if not isinstance(found, NotFound):
                return found
        return exactly

    async def _follow(self, name: str, wanted: str, rrtype: str) -> DnsAnswer | DnsError:
        validated = True
        ttl = 1 << 30
        for _ in range(_MAX_CHAIN):
            try:
                reply = await self._query(wanted, rrtype)
            except DnsError as error:
                return error
            validated = validated and bool(reply.response.flags & dns.flags.AD)
            ttl = min(ttl, reply.chaining_result.minimum_ttl)
            if reply.rrset is not None:
                return answer_of(name, rrtype, reply, validated, ttl)
            final = name_text(reply.canonical_name)
            if final.lower() == wanted.lower():
                return NotFound(wanted, rrtype, error_text(wanted, rrtype, _NO_DATA))
            wanted = final
        return _loop(name, rrtype)

    async def _query(self, name: str, rrtype: str) -> dns.resolver.Answer:
        try:
            return await self._resolver.resolve(
                dns.name.from_text(name),
                rrtype,
                search=False,
                raise_on_no_answer=False,
                backend=self._backend,
            )
        except dns.resolver.NXDOMAIN:
            rcode = int(dns.rcode.NXDOMAIN)
            raise NotFound(name, rrtype, error_text(name, rrtype, _NOT_FOUND), rcode) from None
        except dns.resolver.YXDOMAIN:
            raise Invalid(name, rrtype, error_text(name, rrtype, _NO_RECOVERY)) from None
        except dns.resolver.NoNameservers as error:
            raise _servers_failed(name, rrtype, error) from None
        except (dns.exception.Timeout, dns.resolver.NoResolverConfiguration, OSError):
            raise TempFail(name, rrtype, error_text(name, rrtype, _TRY_AGAIN)) from None
        except dns.exception.DNSException:
            raise malformed(name, rrtype) from None

    async def mx(self, domain: str) -> DnsAnswer:
        """Return the MX records of a domain, best preference first.

        Raises as `lookup` does, and `NullMx` where the domain takes no mail (RFC 7505).
        """
        answer = await self.lookup(domain, "MX")
        if is_null_mx(answer.records):
            raise NullMx(domain, "MX", f"Domain {domain} does not accept mail (nullMX)")
        return answer

    async def addresses(self, host: str, protocols: Protocols = "all") -> tuple[DnsRecord, ...]:
        """Return the A and AAAA records of a host; of an address, the address itself.

        Records of one type are enough.  Without any, raises `TempFail` when one lookup may
        succeed later, and otherwise what the last lookup raised.
        """
        if valid_hostaddr(host):
            if allows(protocols, host):
                return (DnsRecord(host, "AAAA" if ":" in host else "A", 0, host),)
            raise _no_name(host, "A")
        wanted = {"all": ("A", "AAAA"), "ipv4": ("A",), "ipv6": ("AAAA",)}[protocols]
        results = await asyncio.gather(*(self._lookup_or_error(host, t) for t in wanted))
        found = [r for result in results if isinstance(result, DnsAnswer) for r in result.records]
        if found:
            return tuple(found)
        errors = [result for result in results if isinstance(result, DnsError)]
        temporary = [error for error in errors if isinstance(error, TempFail | Filtered)]
        raise (temporary or errors)[-1]

    async def _lookup_or_error(self, host: str, rrtype: str) -> DnsAnswer | DnsError:
        try:
            return await self.lookup(host, rrtype)
        except DnsError as error:
            return error

    async def reverse(self, address: str) -> DnsAnswer:
        """Return the PTR records of an address.  Raises as `lookup` does."""
        return await self.lookup(ip_address(address).reverse_pointer, "PTR")


def _configured(resolv_conf: str) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    try:
        with open(resolv_conf, encoding="utf-8", errors="replace") as file:
            text = file.read()
        resolver.read_resolv_conf(resolv_conf)
    except (OSError, dns.resolver.NoResolverConfiguration):
        text = ""
    times = read_times(text)
    if not resolver.nameservers:
        resolver.nameservers = ["127.0.0.1"]
    resolver.timeout = times.timeout
    resolver.lifetime = times.timeout * times.attempts * len(resolver.nameservers)
    resolver.cache = None
    return resolver


def _search_list(resolver: dns.asyncresolver.Resolver) -> tuple[str, ...]:
    """The domains of "search" or "domain" in resolv.conf, else that of this machine's name."""
    names = resolver.search or [resolver.domain]
    return tuple(name.to_text(omit_final_dot=True) for name in names if name != dns.name.root)


def allows(protocols: Protocols, address: str) -> bool:
    """Tell whether a numeric address is of a protocol that may be used."""
    return protocols == "all" or (protocols == "ipv6") == (":" in address)


def _no_name(name: str, rrtype: str) -> NotFound:
    text = f"Name service error for {name}: invalid host or domain name"
    return NotFound(name, rrtype, text, int(dns.rcode.NXDOMAIN))


def _loop(name: str, rrtype: str) -> NotFound:
    LOG.warning(f"dns_lookup: Name server loop for {name}")
    return NotFound(name, rrtype, f"Name server loop for {name}")


def _servers_failed(name: str, rrtype: str, error: dns.resolver.NoNameservers) -> DnsError:
    causes = [entry[3] for entry in error.kwargs.get("errors", ())]
    if any(isinstance(cause, dns.message.ChainTooLong) for cause in causes):
        return _loop(name, rrtype)
    broken = (dns.exception.FormError, dns.name.BadLabelType, dns.name.BadPointer)
    if causes and all(isinstance(cause, broken) for cause in causes):
        return malformed(name, rrtype)
    return TempFail(name, rrtype, error_text(name, rrtype, _TRY_AGAIN))
