"""Asking a domain for its MTA-STS policy: DNS, then HTTPS (RFC 8461 §3.1, §3.3).

Where a policy is fetched from is decided by whoever owns the domain, and mail can be sent to any
domain. So this connects to public addresses only, unless networks are named as good, on one port,
asks for one page, follows no redirection, and takes no answer but a policy from a server whose
certificate is verified by name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from libmail.dns.answers import DnsAnswer, DnsError, DnsRecord, NotFound
from libmail.dns.resolver import Protocols
from libmail.net.http import HttpError, Response, Url
from libmail.net.https import Unverified
from libmail.sts.policy import Policy, PolicyInvalid, parse_policy, policy_id
from libmail.text.printable import printable

__all__ = [
    "FetchFailed",
    "Network",
    "PageClient",
    "PolicyFetcher",
    "StsResolver",
    "is_public",
    "parse_networks",
]

_PAGE: Final = "/.well-known/mta-sts.txt"
_TYPE: Final = "text/plain"
_MOST_ADDRESSES: Final = 4
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class FetchFailed(Exception):
    """There is no policy to be had. The text says why, and is printable.

    kind: for reports (RFC 8460 §4.3.2.1), as in the attribute policy_failure.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class StsResolver(Protocol):
    """A `libmail.dns.resolver.Resolver`, as far as it is needed here."""

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        """Raises DnsError."""

    async def addresses(self, host: str, protocols: Protocols = "all") -> tuple[DnsRecord, ...]:
        """Raises DnsError."""


class PageClient(Protocol):
    """A `libmail.net.https.HttpsClient`."""

    async def page(self, url: Url, addresses: Sequence[str], accepted: str) -> Response:
        """Raises HttpError."""


class PolicyFetcher:
    """Asks domains, whose names are in ASCII and valid."""

    def __init__(
        self,
        resolver: StsResolver,
        client: PageClient,
        protocols: Protocols,
        networks: Sequence[Network] = (),
    ) -> None:
        """networks: that are as good as public."""
        self._resolver = resolver
        self._client = client
        self._protocols = protocols
        self._networks = networks

    async def announced(self, domain: str) -> str:
        """The id of the policy that the domain has now; "" for none. Raises DnsError."""
        try:
            answer = await self._resolver.lookup(f"_mta-sts.{domain}", "TXT")
        except NotFound:
            return ""
        return policy_id(record.value for record in answer.records)

    async def fetch(self, domain: str) -> Policy:
        """The policy of a domain that announces one. Raises FetchFailed."""
        host = f"mta-sts.{domain}"
        addresses = await self._addresses(host)
        try:
            response = await self._client.page(Url(host, 443, _PAGE), addresses, _TYPE)
        except Unverified as error:
            raise FetchFailed("sts-webpki-invalid", str(error)) from None
        except HttpError as error:
            raise FetchFailed("sts-policy-fetch-error", str(error)) from None
        return _policy(host, response)

    async def _addresses(self, host: str) -> list[str]:
        try:
            records = await self._resolver.addresses(host, self._protocols)
        except DnsError as error:
            raise FetchFailed("sts-policy-fetch-error", printable(error.text)) from None
        found = [record.value for record in records if self._may_ask(record.value)]
        if not found:
            raise FetchFailed("sts-policy-fetch-error", f"{host}: not at a public address")
        return found[:_MOST_ADDRESSES]

    def _may_ask(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return is_public(address) or any(address in network for network in self._networks)


def _policy(host: str, response: Response) -> Policy:
    """The policy in a response, RFC 8461 §3.3. Raises FetchFailed."""
    if response.status != 200:
        raise FetchFailed("sts-policy-fetch-error", f"{host}: HTTP status {response.status}")
    if response.fields.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed("sts-policy-fetch-error", f"{host}: the policy is compressed")
    media = response.fields.get("content-type", "").partition(";")[0].strip().lower()
    if media != _TYPE:
        raise FetchFailed("sts-policy-invalid", f"{host}: the policy is not of type {_TYPE}")
    try:
        return parse_policy(response.body)
    except PolicyInvalid as error:
        raise FetchFailed("sts-policy-invalid", f"{host}: {error}") from None


def is_public(address: Address) -> bool:
    """Whether it belongs to a host of the Internet, also by the IPv4 address inside of it."""
    if address.version == 6:
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def parse_networks(words: Sequence[str]) -> tuple[Network, ...]:
    """Networks as `192.0.2.0/24` or `[2001:db8::]/32`. Raises ValueError."""
    return tuple(ipaddress.ip_network(word.replace("[", "").replace("]", "")) for word in words)
