"""Asking a domain for its policy: whom, and what counts as an answer."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from libmail.dns.answers import DnsRecord, NotFound, TempFail
from libmail.dns.resolver import Protocols
from libmail.net.http import HttpError, Response, Url
from libmail.net.https import Unverified
from libmail.sts.fetch import FetchFailed, PolicyFetcher, is_public, parse_networks
from libmail.sts.policy import Mode, Policy
from tests.unit.dns_records import PlayedDns

BODY = b"version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 86400\n"
PLAIN = {"content-type": "text/plain"}
GOOD = Response(200, PLAIN, BODY)


class Dns(PlayedDns):
    async def addresses(self, host: str, protocols: Protocols = "all") -> tuple[DnsRecord, ...]:
        found: list[DnsRecord] = []
        for rrtype in ("A", "AAAA"):
            try:
                found += (await self.lookup(host, rrtype)).records
            except NotFound:
                pass
        if not found:
            raise NotFound(host, "A", f"nothing for {host}")
        return tuple(found)


class Client:
    def __init__(self, answer: Response | HttpError) -> None:
        self.answer = answer
        self.asked: list[tuple[Url, tuple[str, ...], str]] = []

    async def page(self, url: Url, addresses: Sequence[str], accepted: str) -> Response:
        self.asked.append((url, tuple(addresses), accepted))
        if isinstance(self.answer, HttpError):
            raise self.answer
        return self.answer


def fetched(client: Client, *addresses: str, networks: Sequence[str] = ()) -> Policy:
    rrtypes = (("AAAA" if ":" in one else "A", one) for one in addresses)
    dns = Dns([f"mta-sts.a.test {rrtype} {address}" for rrtype, address in rrtypes])
    fetcher = PolicyFetcher(dns, client, "all", parse_networks(networks))
    return asyncio.run(fetcher.fetch("a.test"))


def test_page() -> None:
    client = Client(GOOD)
    assert fetched(client, "1.2.3.4", "2a01::1") == Policy(Mode.ENFORCE, ("mx.a.test",), 86400)
    url = Url("mta-sts.a.test", 443, "/.well-known/mta-sts.txt")
    assert client.asked == [(url, ("1.2.3.4", "2a01::1"), "text/plain")]


def test_no_other_hosts_than_public_ones() -> None:
    client = Client(GOOD)
    fetched(client, "127.0.0.1", "10.0.0.1", "1.2.3.4", "fe80::1", "::ffff:192.168.1.1")
    assert [addresses for _, addresses, _ in client.asked] == [("1.2.3.4",)]
    with pytest.raises(FetchFailed, match=r"mta-sts\.a\.test: not at a public address") as caught:
        fetched(client, "127.0.0.1")
    assert caught.value.kind == "sts-policy-fetch-error"
    fetched(client, "127.0.0.1", "::1", networks=["127.0.0.0/8", "[::1]/128"])
    assert client.asked[-1][1] == ("127.0.0.1", "::1")
    assert len(client.asked) == 2
    fetched(client, *(f"1.2.3.{n}" for n in range(100)))
    assert len(client.asked[-1][1]) == 4


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("1.1.1.1", True),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.0.2.1", False),
        ("224.0.0.251", False),
        ("255.255.255.255", False),
        ("2a01::1", True),
        ("::", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:8.8.8.8", True),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::10.0.0.1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_what_is_public(text: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is public


@pytest.mark.parametrize("words", [["x"], ["10.0.0.1/8"], ["10.0.0.0/33"], [""]])
def test_no_networks(words: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r"network|host bits|prefix|Empty|empty"):
        parse_networks(words)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (Unverified("h: Hostname mismatch"), "sts-webpki-invalid", "h: Hostname mismatch"),
        (HttpError("h: timed out"), "sts-policy-fetch-error", "h: timed out"),
        (Response(404, PLAIN, BODY), "sts-policy-fetch-error", "mta-sts.a.test: HTTP status 404"),
        (Response(301, PLAIN, BODY), "sts-policy-fetch-error", "mta-sts.a.test: HTTP status 301"),
        (Response(200, {}, BODY), "sts-policy-invalid",
         "mta-sts.a.test: the policy is not of type text/plain"),
        (Response(200, {"content-type": "text/html"}, BODY), "sts-policy-invalid",
         "mta-sts.a.test: the policy is not of type text/plain"),
        (Response(200, {**PLAIN, "content-encoding": "gzip"}, BODY), "sts-policy-fetch-error",
         "mta-sts.a.test: the policy is compressed"),
        (Response(200, PLAIN, b"x"), "sts-policy-invalid",
         "mta-sts.a.test: a line of the policy is no field"),
    ],
)  # fmt: skip
def test_what_is_no_answer(answer: Response | HttpError, kind: str, reason: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        fetched(Client(answer), "1.2.3.4")
    assert (caught.value.kind, str(caught.value)) == (kind, reason)


def test_types_with_parameters() -> None:
    response = Response(200, {"content-type": "Text/Plain ; charset=utf-8"}, BODY)
    assert fetched(Client(response), "1.2.3.4").max_age == 86400


def test_no_address() -> None:
    with pytest.raises(FetchFailed, match=r"nothing for mta-sts\.a\.test"):
        fetched(Client(GOOD))


def test_announced() -> None:
    dns = Dns(["_mta-sts.a.test TXT v=STSv1; id=20260101;", "_mta-sts.b.test FAIL"])
    fetcher = PolicyFetcher(dns, Client(GOOD), "all")
    assert asyncio.run(fetcher.announced("a.test")) == "20260101"
    assert asyncio.run(fetcher.announced("c.test")) == ""
    with pytest.raises(TempFail):
        asyncio.run(fetcher.announced("b.test"))
