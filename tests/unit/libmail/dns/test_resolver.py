"""The resolver against a fake name server: answers, the words of errors, caching, the jail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from libmail.dns import DnsError, DnsRecord, Filtered, Invalid, NotFound, NullMx, TempFail
from libmail.dns.resolver import (
    Protocols,
    Resolver,
    ResolverTimes,
    SearchOptions,
    read_times,
    search_options,
)
from libmail.log import LOG, Fatal
from libmail.lookup.reply_filter import ReplyFilter, record_text
from libmail.tables.maps import Maps
from libmail.tls.dane import Tlsa, read_tlsa
from tests.unit.libmail.dns.fake_server import FakeServer

T = TypeVar("T")

RECORDS = [
    "a.test MX 20 mx2.a.test.",
    "a.test MX 10 mx1.a.test.",
    'a.test TXT "one" "two"',
    "mx1.a.test A 192.0.2.1",
    "mx1.a.test AAAA 2001:db8::1",
    "mx2.a.test A 192.0.2.2",
    "alias.test CNAME a.test.",
    "loop1.test CNAME loop2.test.",
    "loop2.test CNAME loop1.test.",
    "null.test MX 0 .",
    "wild.test MX 10 *.wild.test.",
    "*.wild.test A 192.0.2.8",
    "num.test MX 10 192.0.2.9.",
    "bad.test MX 10 -bad-.test.",
    "half.test MX 10 -bad-.test.",
    "half.test MX 20 mx2.a.test.",
    "noaddr.test TXT x",
    "broken.test SERVFAIL",
    "silent.test TIMEOUT",
    "odd.test GARBAGE",
    "1.2.0.192.in-addr.arpa PTR mx1.a.test.",
    "xn--bcher-kva.test A 192.0.2.7",
    "forged.test A 192.0.2.66",
    "forged.test INSECURE",
    "toforged.test CNAME forged.test.",
    f"_25._tcp.mx1.a.test TLSA 2 0 2 {'AB' * 64}",
    ". NS ns.a.test.",
    "_sip._tcp.a.test SRV 1 2 5060 mx1.a.test.",
]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(RECORDS) as running:
        yield running


@pytest.fixture
def make(server: FakeServer, tmp_path: Path) -> Callable[..., Resolver]:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def build(*, dnssec: bool = False, filtered: str = "", probe: str = "") -> Resolver:
        reply_filter = ReplyFilter(Maps("smtp_dns_reply_filter", filtered))
        resolver = Resolver(str(conf), dnssec=dnssec, probe=probe, reply_filter=reply_filter)
        resolver.use_port(server.port)
        return resolver

    return build


def run(work: Coroutine[None, None, T]) -> T:
    return asyncio.run(work)


def test_mx_sorted_by_preference(make: Callable[..., Resolver]) -> None:
    answer = run(make().mx("a.test"))
    assert [(r.value, r.preference) for r in answer.records] == [
        ("mx1.a.test", 10),
        ("mx2.a.test", 20),
    ]
    assert answer.final == "a.test"
    assert answer.ttl == 60
    assert not answer.validated


def test_cname_is_followed(make: Callable[..., Resolver]) -> None:
    answer = run(make().lookup("alias.test", "TXT"))
    assert answer.final == "a.test"
    assert [r.value for r in answer.records] == ["onetwo"]


def test_validated(make: Callable[..., Resolver]) -> None:
    assert run(make(dnssec=True).lookup("mx1.a.test", "A")).validated


def test_not_validated(make: Callable[..., Resolver]) -> None:
    """Every step on the way has to be."""
    for name in ("forged.test", "toforged.test"):
        assert not run(make(dnssec=True).lookup(name, "A")).validated


def test_tlsa(make: Callable[..., Resolver]) -> None:
    answer = run(make(dnssec=True).lookup("_25._tcp.mx1.a.test", "TLSA"))
    assert answer.validated
    assert read_tlsa(answer.records[0].value) == Tlsa(2, 0, 2, b"\xab" * 64)


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        ("ns:.", ""),
        ("a:forged.test", "received a response that is not DNSSEC validated"),
        ("a:nothing.test", "received a response that is not DNSSEC validated"),
        ("a:broken.test", "received no response: "),
        ("nonsense:x", "received no response: "),
        ("", ""),
    ],
)
def test_probe(make: Callable[..., Resolver], probe: str, why: str) -> None:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtp")
    resolver = make(dnssec=True, probe=probe)
    for _ in range(2):
        run(resolver.lookup("forged.test", "A"))
    if not why:
        assert logged == []
        return
    first, second = logged
    assert first == "warning: DNSSEC validation may be unavailable"
    assert second.startswith(f"warning: reason: dnssec_probe '{probe}' {why}")


def test_no_probe_where_something_is_validated(make: Callable[..., Resolver]) -> None:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtp")
    resolver = make(dnssec=True, probe="a:forged.test")
    run(resolver.lookup("mx1.a.test", "A"))
    run(resolver.lookup("forged.test", "A"))
    assert logged == []


def test_srv_and_reverse(make: Callable[..., Resolver]) -> None:
    record = run(make().lookup("_sip._tcp.a.test", "SRV")).records[0]
    assert (record.value, record.preference, record.weight, record.port) == (
        "mx1.a.test",
        1,
        2,
        5060,
    )
    assert run(make().reverse("192.0.2.1")).records[0].value == "mx1.a.test"


def test_unicode_name(make: Callable[..., Resolver]) -> None:
    assert run(make().lookup("bücher.test", "A")).records[0].value == "192.0.2.7"


FILTERED = [
    ("/ MX 10 /", "MX", ["mx2.a.test"]),
    ("/^a\\.test\\. 60 IN MX 20 mx2\\.a\\.test\\.$/", "MX", ["mx1.a.test"]),
    ("/ TXT onetwo$/", "MX", ["mx1.a.test", "mx2.a.test"]),
]


@pytest.mark.parametrize(("pattern", "rrtype", "left"), FILTERED)
def test_reply_filter(
    make: Callable[..., Resolver], pattern: str, rrtype: str, left: list[str]
) -> None:
    answer = run(make(filtered=f"pcre:{{{{{pattern} IGNORE}}}}").lookup("a.test", rrtype))
    assert [record.value for record in answer.records] == left


@pytest.mark.parametrize(
    ("table", "kind", "why"),
    [
        ("static:ignore", Filtered, "DNS reply filter drops all results"),
        ("static:FROB", TempFail, "Invalid DNS reply filter syntax"),
        ("fail:x", TempFail, "Invalid DNS reply filter syntax"),
    ],
)
def test_reply_filter_leaves_nothing(
    make: Callable[..., Resolver], table: str, kind: type[DnsError], why: str
) -> None:
    with pytest.raises(kind) as caught:
        run(make(filtered=table).mx("a.test"))
    assert caught.value.text == f"Error looking up name=a.test type=MX: {why}"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (DnsRecord("a.b", "MX", 60, "mx.b", 10), "a.b. 60 IN MX 10 mx.b."),
        (DnsRecord("a.b", "A", 5, "192.0.2.1"), "a.b. 5 IN A 192.0.2.1"),
        (DnsRecord("a.b", "SRV", 5, "c.b", 1, 2, 25), "a.b. 5 IN SRV 1 2 25 c.b."),
        (DnsRecord("a.b", "TXT", 5, "words"), "a.b. 5 IN TXT words"),
    ],
)
def test_record_text(record: DnsRecord, text: str) -> None:
    assert record_text(record) == text


PREFIX = "Host or domain name not found. Name service error for name="
ERRORS: list[tuple[str, str, type[DnsError], int, str]] = [
    ("nx.test", "MX", NotFound, 3, f"{PREFIX}nx.test type=MX: Host not found"),
    (
        "noaddr.test",
        "A",
        NotFound,
        0,
        f"{PREFIX}noaddr.test type=A: Host found but no data record of requested type",
    ),
    (
        "broken.test",
        "MX",
        TempFail,
        0,
        f"{PREFIX}broken.test type=MX: Host not found, try again",
    ),
    ("silent.test", "A", TempFail, 0, f"{PREFIX}silent.test type=A: Host not found, try again"),
    (
        "bad.test",
        "MX",
        Invalid,
        0,
        f"{PREFIX}bad.test type=MX: Malformed or unexpected name server reply",
    ),
    ("loop1.test", "A", NotFound, 0, "Name server loop for loop1.test"),
    (
        "a..b",
        "A",
        NotFound,
        3,
        "Name service error for a..b: invalid host or domain name",
    ),
    ("null.test", "MX", NullMx, 0, "Domain null.test does not accept mail (nullMX)"),
]


@pytest.mark.parametrize(
    ("name", "rrtype", "kind", "rcode", "text"), ERRORS, ids=[case[0] for case in ERRORS]
)
def test_errors(
    make: Callable[..., Resolver],
    name: str,
    rrtype: str,
    kind: type[DnsError],
    rcode: int,
    text: str,
) -> None:
    resolver = make()
    with pytest.raises(DnsError) as caught:
        run(resolver.mx(name) if rrtype == "MX" else resolver.lookup(name, rrtype))
    assert type(caught.value) is kind
    assert (caught.value.text, caught.value.rcode) == (text, rcode)


def test_garbage_is_no_permanent_error(make: Callable[..., Resolver]) -> None:
    with pytest.raises((TempFail, Invalid)):
        run(make().lookup("odd.test", "A"))


def test_bad_record_does_not_hide_good_one(make: Callable[..., Resolver]) -> None:
    assert [r.value for r in run(make().mx("half.test")).records] == ["mx2.a.test"]
    assert [r.value for r in run(make().mx("num.test")).records] == ["192.0.2.9"]


ADDRESSES: list[tuple[str, Protocols, list[str]]] = [
    ("mx1.a.test", "all", ["192.0.2.1", "2001:db8::1"]),
    ("mx1.a.test", "ipv4", ["192.0.2.1"]),
    ("mx1.a.test", "ipv6", ["2001:db8::1"]),
    ("mx2.a.test", "all", ["192.0.2.2"]),
    ("192.0.2.9", "all", ["192.0.2.9"]),
    ("192.0.2.9", "ipv4", ["192.0.2.9"]),
    ("*.wild.test", "ipv4", ["192.0.2.8"]),
]


@pytest.mark.parametrize(("host", "protocols", "want"), ADDRESSES)
def test_addresses(
    make: Callable[..., Resolver], host: str, protocols: Protocols, want: list[str]
) -> None:
    assert [r.value for r in run(make().addresses(host, protocols))] == want


@pytest.mark.parametrize(("host", "protocols"), [("192.0.2.9", "ipv6"), ("::1", "ipv4")])
def test_address_of_a_protocol_that_is_off(
    make: Callable[..., Resolver], host: str, protocols: Protocols
) -> None:
    with pytest.raises(NotFound, match="invalid host or domain name"):
        run(make().addresses(host, protocols))


def test_mx_host_that_is_a_wildcard(make: Callable[..., Resolver]) -> None:
    assert [r.value for r in run(make().mx("wild.test")).records] == ["*.wild.test"]


def test_null_mx_is_not_overlooked(make: Callable[..., Resolver]) -> None:
    with pytest.raises(NullMx):
        run(make(filtered="static:ignore").mx("null.test"))


def test_address_error_names_the_last_type(make: Callable[..., Resolver]) -> None:
    with pytest.raises(NotFound, match=r"name=nx\.test type=AAAA: Host not found"):
        run(make().addresses("nx.test"))


def test_answers_and_absence_are_remembered(
    make: Callable[..., Resolver], server: FakeServer
) -> None:
    async def ask() -> None:
        resolver = make()
        for _ in range(3):
            await resolver.lookup("MX1.a.test", "A")
            with pytest.raises(NotFound):
                await resolver.lookup("gone.test", "A")

    server.queries.clear()
    run(ask())
    assert sorted(server.queries) == [("gone.test", "A"), ("mx1.a.test", "A")]


TIMES = [
    ("", ResolverTimes(5.0, 2)),
    ("options timeout:1 attempts:3", ResolverTimes(1.0, 3)),
    ("nameserver 1.1.1.1\noptions rotate timeout:99\noptions attempts:0\n", ResolverTimes(30.0, 1)),
    ("# options timeout:1", ResolverTimes(5.0, 2)),
]


@pytest.mark.parametrize(("text", "want"), TIMES)
def test_read_times(text: str, want: ResolverTimes) -> None:
    assert read_times(text) == want


LATE = """
import asyncio, os, sys
from libmail.dns import DnsError
from libmail.dns.native import NativeResolver
from libmail.dns.resolver import Resolver
resolver, native = Resolver(sys.argv[1]), NativeResolver()
resolver.use_port(int(sys.argv[2]))
late = []
async def ask(names):
    for name in names:
        for rrtype in ("MX", "A", "AAAA", "TXT", "PTR"):
            try:
                await resolver.lookup(name, rrtype)
            except DnsError:
                pass
    print(await native.addresses("localhost", "ipv4"), await native.name("127.0.0.1"))
factory = asyncio.new_event_loop
if sys.argv[3] == "uvloop":
    from uvloop import new_event_loop as factory
runner = asyncio.Runner(loop_factory=factory)
runner.get_loop()
before = set(sys.modules)
def hook(event, args):
    if event == "open" and str(args[0]).endswith((".py", ".pyc", ".so")):
        late.append(args[0])
sys.addaudithook(hook)
runner.run(ask(["a.test", "alias.test", "nx.test", "broken.test", "bücher.test"]))
print(sorted(set(sys.modules) - before), late)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_module_is_loaded_by_lookups(server: FakeServer, tmp_path: Path, loop: str) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    command = [sys.executable, "-c", LATE, str(conf), str(server.port), loop]
    # In its debug mode asyncio reads source files, for the stacks that it might print.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONASYNCIODEBUG"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.stdout.splitlines() == ["('127.0.0.1',) localhost", "[] []"], done.stderr


SEARCHED = [
    ("mx1", SearchOptions(own_domain=True), "mx1.a.test"),
    ("mx1", SearchOptions(own_domain=True, parents=True), "mx1.a.test"),
    ("forged", SearchOptions(own_domain=True, parents=True), "forged.test"),
    ("mx1.a", SearchOptions(parents=True), "mx1.a.test"),
    ("mx2.a.test", SearchOptions(own_domain=True, parents=True), "mx2.a.test"),
    ("mx1", SearchOptions(), ""),
    ("mx1", SearchOptions(parents=True), ""),  # which is about names with dots
    ("forged", SearchOptions(own_domain=True), ""),
    ("mx1.a", SearchOptions(own_domain=True), ""),
    ("mx1.a.", SearchOptions(parents=True), ""),
    ("nobody", SearchOptions(own_domain=True, parents=True), ""),
]


@pytest.mark.parametrize(("name", "search", "owner"), SEARCHED)
def test_search(
    server: FakeServer, tmp_path: Path, name: str, search: SearchOptions, owner: str
) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch a.test test\noptions timeout:1 attempts:1\n")
    resolver = Resolver(str(conf), search=search)
    resolver.use_port(server.port)
    if owner:
        answer = run(resolver.lookup(name, "A"))
        assert (answer.name, answer.records[0].owner) == (name, owner)
        return
    with pytest.raises(NotFound) as caught:
        run(resolver.lookup(name, "A"))
    assert f"name={name.removesuffix('.')} type=A: Host not found" in caught.value.text


def test_no_search_for_tlsa(server: FakeServer, tmp_path: Path) -> None:
    """They would be those of another host."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch a.test\n")
    resolver = Resolver(str(conf), search=SearchOptions(parents=True))
    resolver.use_port(server.port)
    with pytest.raises(NotFound):
        run(resolver.lookup("_25._tcp.mx1", "TLSA"))


def test_search_options() -> None:
    words = ("res_defnames", "res_dnsrch")
    assert search_options("smtp_dns_resolver_options", words) == SearchOptions(True, True)
    with pytest.raises(Fatal, match='unknown lmtp_dns_resolver_options value "RES_DNSRCH"'):
        search_options("lmtp_dns_resolver_options", ("RES_DNSRCH",))
