"""From a next hop to the servers to try."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from daemons.smtp.settings import SmtpParams
from libmail.config import open_config
from libmail.dns import DnsAnswer, DnsError, DnsRecord, Filtered, NotFound, TempFail
from libmail.lookup.context import LiveLookups, Lookups
from libmail.lookup.next_hop import (
    BadDestination,
    Destination,
    parse_destination,
    split_destinations,
)
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.lookup.servers import NoServers, Server, ServerChoice, Servers, select_servers
from libmail.lookup.service_records import in_order
from libmail.tables.match import StringList
from tests.unit.dns_records import PlayedDns

DESTINATIONS = [
    ("example.org", False, Destination("example.org", 25)),
    ("example.org:587", False, Destination("example.org", 587, service="587")),
    ("example.org:mail", False, Destination("example.org", 2525, service="mail")),
    ("[mx.example.org]", False, Destination("mx.example.org", 25, True)),
    ("[192.0.2.1]:26", False, Destination("192.0.2.1", 26, True, service="26")),
    ("[2001:db8::1]:26", False, Destination("2001:db8::1", 26, True, service="26")),
    ("[ipv6:2001:db8::1]", False, Destination("2001:db8::1", 25, True)),
    ("2001:db8::1", False, Destination("2001:db8::1", 25)),
    ("unix:private/lmtp", True, Destination(path="private/lmtp")),
    ("inet:host:24", True, Destination("host", 24, service="24")),
    ("inet:[::1]", True, Destination("::1", 25, True)),
    ("host", True, Destination("host", 25)),
]
KNOWN = ("lmtp=24", "mail=post=2525")


@pytest.mark.parametrize(
    ("text", "lmtp", "want"), DESTINATIONS, ids=[case[0] for case in DESTINATIONS]
)
def test_destination(text: str, lmtp: bool, want: Destination) -> None:
    assert parse_destination(text, 25, lmtp=lmtp, known=KNOWN) == want


HOST = "valid hostname or network address required in server description"
MISTAKES = [
    ("[host", 'missing "]" in server description'),
    ("[host]25", 'garbage after "]" in server description'),
    ("[127.0.0.1]:25:25", "garbage after numerical service in server description"),
    ("host:0", "bad network port: 0"),
    ("host:70000", "bad network port: 70000"),
    ("h:?", "unknown service: ?/tcp"),
    (":25", "missing host information in server description"),
    ("[]", HOST),
    ("[]:25", HOST),
    ("host:25:25", HOST),
    ("/run/dovecot/lmtp", HOST),
    ("127.0.0.300", HOST),
    ("[2001:db8::zz]", HOST),
    ("-bad.test", HOST),
    ("a..b", HOST),
    ("x" * 64 + ".test", HOST),
    ("a@b", HOST),
    ("\0", HOST),
]


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(("text", "why"), MISTAKES, ids=[case[0] for case in MISTAKES])
def test_bad_destination(text: str, why: str, lmtp: bool) -> None:
    with pytest.raises(BadDestination, match=re.escape(why)):
        parse_destination(text, 25, lmtp=lmtp)


@pytest.mark.parametrize("text", ["foo_bar.test", "bücher.example", "host.", "1and1.test"])
def test_names_that_occur(text: str) -> None:
    assert parse_destination(text, 25, lmtp=False).host == text


def test_no_socket() -> None:
    with pytest.raises(BadDestination):
        parse_destination("unix:", 24, lmtp=True)


def test_list() -> None:
    assert split_destinations("[a]:25, b,c  d") == ("[a]:25", "b", "c", "d")


FOUR = [Server("a", "192.0.2.1", 10), Server("b", "192.0.2.2", 20)]
SIX = [Server("a", "::1", 10), Server("b", "::2", 20)]
ORDERS = [
    ("by rank", [FOUR[1], FOUR[0]], "any", 0, ["192.0.2.1", "192.0.2.2"]),
    ("ipv6 first", [*FOUR, *SIX], "ipv6", 0, ["::1", "192.0.2.1", "::2", "192.0.2.2"]),
    ("ipv4 first", [*SIX, *FOUR], "ipv4", 0, ["192.0.2.1", "::1", "192.0.2.2", "::2"]),
    ("limit", FOUR, "any", 1, ["192.0.2.1"]),
    (
        "balance",
        [*[Server("a", f"::{n}", 1) for n in range(1, 9)], *FOUR],
        "any",
        4,
        ["::1", "::2", "192.0.2.1", "192.0.2.2"],
    ),
]


@pytest.mark.parametrize(
    ("found", "preference", "limit", "want"),
    [case[1:] for case in ORDERS],
    ids=[case[0] for case in ORDERS],
)
def test_order(found: list[Server], preference: str, limit: int, want: list[str]) -> None:
    servers = select_servers(
        found,
        preference=preference,
        randomize=False,
        balance=True,
        limit=limit,
        shuffle=random.Random(1),
    )
    assert [server.address for server in servers] == want


def test_equal_rank_is_shuffled() -> None:
    found = [Server("a", f"192.0.2.{n}", 1) for n in range(1, 6)]
    first = {
        select_servers(
            found,
            preference="any",
            randomize=True,
            balance=True,
            limit=0,
            shuffle=random.Random(seed),
        )[0].address
        for seed in range(50)
    }
    assert len(first) == 5


class FakeDns:
    """mx: by domain, "" is a null MX. hosts: addresses by name. srv: priority, weight, port and
    target by name."""

    def __init__(
        self,
        mx: dict[str, list[tuple[int, str]] | DnsError],
        hosts: dict[str, list[str]],
        srv: dict[str, list[tuple[int, int, int, str]] | DnsError],
    ) -> None:
        self._mx, self._hosts, self._srv = mx, hosts, srv

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        if rrtype == "SRV":
            services = self._srv.get(name, NotFound(name, "SRV", f"no SRV {name}", 3))
            if isinstance(services, DnsError):
                raise services
            records = [
                DnsRecord(name, "SRV", 1, host, rank, weight, port)
                for rank, weight, port, host in sorted(services)
            ]
        elif rrtype == "MX":
            found = self._mx.get(name, NotFound(name, "MX", f"no MX {name}"))
            if isinstance(found, DnsError):
                raise found
            records = [DnsRecord(name, "MX", 1, host, rank) for rank, host in sorted(found)]
        elif name in self._hosts:
            records = [DnsRecord(name, "A", 1, address) for address in self._hosts[name]]
        else:
            raise NotFound(name, "A", f"no A {name}", 3)
        return DnsAnswer(name, name, rrtype, tuple(records), False, 1)


HOSTS = {"mx1": ["192.0.2.1"], "mx2": ["192.0.2.2"], "me": ["192.0.2.99"], "plain": ["192.0.2.7"]}
HOSTS |= {f"mx{n}": [f"192.0.2.{n}"] for n in range(3, 9)}
MX: dict[str, list[tuple[int, str]] | DnsError] = {
    "two": [(20, "mx2"), (10, "mx1")],
    "backup": [(20, "me"), (10, "mx1"), (30, "mx2")],
    "mine": [(10, "me"), (20, "mx2")],
    "lost": [(10, "gone"), (20, "me")],
    "gone": [(10, "nowhere")],
    "null": [(0, "")],
    "many": [(10, f"mx{n}") for n in range(3, 9)],
    "busy": TempFail("busy", "MX", "try again"),
}

SRV: dict[str, list[tuple[int, int, int, str]] | DnsError] = {
    "_submission._tcp.two": [(20, 0, 2587, "mx2"), (10, 5, 1587, "mx1"), (30, 1, 3587, "gone")],
    "_submission._tcp.gone": [(10, 0, 587, "nowhere")],
    "_submission._tcp.not": [(0, 0, 0, "")],
    "_submission._tcp.busy": TempFail("_submission._tcp.busy", "SRV", "try again"),
    "_submission._tcp.odd": Filtered("_submission._tcp.odd", "SRV", "all overlooked"),
    "_submission._tcp.me": [(10, 0, 25, "me")],
    "_smtp._tcp.plain": [(10, 0, 26, "me"), (20, 0, 25, "mx1")],
    "_smtp._tcp.backup": [(10, 0, 25, "mx1"), (20, 0, 25, "me"), (30, 0, 25, "mx2")],
    "_smtp._tcp.mine": [(10, 0, 25, "me")],
    "_lmtp._tcp.two": [(10, 0, 24, "mx2")],
    "_submission._tcp.xn--bcher-kva": [(10, 0, 587, "mx1")],
}


NO_VALUES: Final[Mapping[str, str]] = {}


def servers(
    folder: Path, nexthop: str, values: Mapping[str, str] = NO_VALUES, *, lmtp: bool = False
) -> tuple[list[str], bool]:
    """The addresses, with the ports of SRV records."""
    pairs = {"inet_protocols": "ipv4", "smtp_randomize_addresses": "no", **values}
    (folder / "main.cf").write_text("".join(f"{n} = {v}\n" for n, v in pairs.items()))
    params = open_config(str(folder)).load(SmtpParams)
    service = "lmtp" if lmtp else "smtp"
    own = frozenset(["192.0.2.99"])
    choice = ServerChoice(params, "ipv4", own, service=service, lmtp=lmtp)
    destination = parse_destination(nexthop, 25, lmtp=lmtp, known=KNOWN)
    loop_detect = destination.port == 25
    record: list[Asked] = []

    async def find(lookups: Lookups) -> Servers:
        return await choice.servers(lookups, destination, loop_detect=loop_detect)

    async def outcome(lookups: Lookups) -> Servers | NoServers:
        try:
            return await find(lookups)
        except NoServers as error:
            return error

    live = LiveLookups(
        {},
        lists={"use_srv_lookup": StringList("use_srv_lookup", params.use_srv_lookup)},
        resolver=FakeDns(MX, HOSTS, SRV),  # type: ignore[arg-type]
    )
    found = asyncio.run(outcome(RecordingLookups(live, record)))
    # The same again without DNS, and chance decides as it did.
    again = asyncio.run(outcome(ReplayedLookups(record)))
    if isinstance(found, NoServers):
        assert vars(again) == vars(found)
        raise found
    assert again == found
    addresses = [f"{one.address}:{one.port}" if one.port else one.address for one in found.servers]
    return addresses, found.among_mx


def test_chance_is_recorded(tmp_path: Path) -> None:
    values = {"smtp_randomize_addresses": "yes", "smtp_mx_address_limit": "0"}
    found, _ = servers(tmp_path, "many", values)
    assert sorted(found) == [f"192.0.2.{n}" for n in range(3, 9)]


FOUND = [
    ("two", ["192.0.2.1", "192.0.2.2"], False),
    ("[mx2]", ["192.0.2.2"], False),
    ("[192.0.2.50]", ["192.0.2.50"], False),
    ("192.0.2.50", ["192.0.2.50"], False),
    ("plain", ["192.0.2.7"], False),
    ("backup", ["192.0.2.1"], True),
    ("mine:26", ["192.0.2.99", "192.0.2.2"], False),
]


@pytest.mark.parametrize(("nexthop", "want", "among"), FOUND, ids=[case[0] for case in FOUND])
def test_servers(tmp_path: Path, nexthop: str, want: list[str], among: bool) -> None:
    assert servers(tmp_path, nexthop) == (want, among)


NO_NAME = "Name service error for 2001:db8::1: invalid host or domain name"
FAILURES = [
    ("mine", {}, "5.4.6", "mail for mine loops back to myself"),
    ("[me]", {}, "5.4.6", "mail for me loops back to myself"),
    ("lost", {}, "4.4.4", "unable to find primary relay for lost"),
    ("gone", {}, "5.4.4", "no A nowhere"),
    ("gone", {"smtp_defer_if_no_mx_address_found": "yes"}, "4.4.4", "no A nowhere"),
    ("nosuch", {}, "5.4.4", "no A nosuch"),
    (
        "[2001:db8::1]",
        {},
        "5.4.4",
        NO_NAME,
    ),  # inet_protocols = ipv4
    (
        "[ipv6:2001:db8::1]",
        {},
        "5.4.4",
        NO_NAME,
    ),
    ("2001:db8::1", {}, "5.4.4", NO_NAME),
    ("null", {}, "5.1.0", "Domain null does not accept mail (nullMX)"),
    ("busy", {}, "4.4.3", "try again"),
    ("busy", {"ignore_mx_lookup_error": "yes"}, "5.4.4", "no A busy"),
]


@pytest.mark.parametrize(
    ("nexthop", "values", "dsn", "reason"), FAILURES, ids=[f"{c[0]}-{c[2]}" for c in FAILURES]
)
def test_no_servers(
    tmp_path: Path, nexthop: str, values: dict[str, str], dsn: str, reason: str
) -> None:
    with pytest.raises(NoServers) as caught:
        servers(tmp_path, nexthop, values)
    assert (caught.value.dsn, caught.value.reason) == (dsn, reason)


SUBMISSION = {"use_srv_lookup": "submission"}
BOTH = ["192.0.2.1:1587", "192.0.2.2:2587"]
IGNORE, FALL_BACK = {"ignore_srv_lookup_error": "yes"}, {"allow_srv_lookup_fallback": "yes"}
BY_SRV = [
    ("hosts and ports", "two:submission", False, SUBMISSION, BOTH),
    ("other service", "two:smtp", False, SUBMISSION, ["192.0.2.1", "192.0.2.2"]),
    ("by number", "two:587", False, SUBMISSION, ["192.0.2.1", "192.0.2.2"]),
    ("off", "two:submission", False, {}, ["192.0.2.1", "192.0.2.2"]),
    ("brackets", "[mx2]:submission", False, SUBMISSION, ["192.0.2.2"]),
    ("address", "192.0.2.50:submission", False, SUBMISSION, ["192.0.2.50"]),
    ("utf-8", "b\u00fccher:submission", False, SUBMISSION, ["192.0.2.1:587"]),
    ("default service", "backup", False, {"use_srv_lookup": "smtp"}, ["192.0.2.1:25"]),
    (
        "own address, other port",
        "plain",
        False,
        {"use_srv_lookup": "smtp"},
        ["192.0.2.99:26", "192.0.2.1:25"],
    ),
    ("other port than own", "me:submission", False, SUBMISSION, ["192.0.2.99:25"]),
    ("table", "two:submission", False, {"use_srv_lookup": "inline:{submission=x}"}, BOTH),
    (
        "none, MX hosts",
        "many:submission",
        False,
        SUBMISSION | FALL_BACK,
        [f"192.0.2.{n}" for n in range(3, 8)],
    ),
    ("none, address", "plain:submission", False, SUBMISSION | FALL_BACK, ["192.0.2.7"]),
    ("lmtp", "inet:two:lmtp", True, {"use_srv_lookup": "lmtp"}, ["192.0.2.2:24"]),
    ("lmtp default", "two", True, {"use_srv_lookup": "lmtp"}, ["192.0.2.2:24"]),
    ("lmtp without MX", "plain", True, {"use_srv_lookup": "lmtp"} | FALL_BACK, ["192.0.2.7"]),
]


@pytest.mark.parametrize(
    ("nexthop", "lmtp", "values", "want"),
    [case[1:] for case in BY_SRV],
    ids=[case[0] for case in BY_SRV],
)
def test_srv(
    tmp_path: Path, nexthop: str, lmtp: bool, values: dict[str, str], want: list[str]
) -> None:
    found, among = servers(tmp_path, nexthop, values, lmtp=lmtp)
    assert found == want
    assert among == (nexthop == "backup")


NO_SRV = [
    ("none", "plain:submission", {}, "5.4.4", "no SRV _submission._tcp.plain"),
    ("none, errors ignored", "plain:submission", IGNORE, "5.4.4", "no SRV _submission._tcp.plain"),
    ("failure", "busy:submission", {}, "4.4.3", "try again"),
    ("filtered", "odd:submission", {}, "4.7.0", "all overlooked"),
    ("ignored, MX fails", "busy:submission", IGNORE, "4.4.3", "try again"),
    ("fallback, MX fails", "busy:submission", FALL_BACK, "4.4.3", "try again"),
    ("no addresses", "gone:submission", FALL_BACK, "5.4.4", "no A nowhere"),
    ("loop", "mine", {"use_srv_lookup": "smtp"}, "5.4.6", "mail for mine loops back to myself"),
    (
        "not there",
        "not:submission",
        FALL_BACK,
        "5.1.0",
        "Domain not does not have the service (SRV _submission._tcp.not)",
    ),
    (
        "broken table",
        "two:submission",
        {"use_srv_lookup": "fail:x"},
        "4.3.5",
        "Server configuration error",
    ),
]


@pytest.mark.parametrize(
    ("nexthop", "values", "dsn", "reason"),
    [case[1:] for case in NO_SRV],
    ids=[case[0] for case in NO_SRV],
)
def test_no_srv(
    tmp_path: Path, nexthop: str, values: dict[str, str], dsn: str, reason: str
) -> None:
    with pytest.raises(NoServers) as caught:
        servers(tmp_path, nexthop, SUBMISSION | values)
    assert (caught.value.dsn, caught.value.reason) == (dsn, reason)


@pytest.mark.parametrize(("wanted", "host"), [("no", "alias.test"), ("yes", "real.test")])
def test_name_of_a_server_that_is_an_alias(tmp_path: Path, wanted: str, host: str) -> None:
    (tmp_path / "main.cf").write_text(f"smtp_cname_overrides_servername = {wanted}\n")
    params = open_config(str(tmp_path)).load(SmtpParams)
    dns = PlayedDns(["alias.test CNAME real.test", "real.test A 192.0.2.1"])
    lookups = LiveLookups({}, resolver=dns)  # type: ignore[arg-type]
    choice = ServerChoice(params, "ipv4", frozenset())
    destination = parse_destination("[alias.test]", 25, lmtp=False)
    found = asyncio.run(choice.servers(lookups, destination, loop_detect=False))
    assert [(one.host, one.final) for one in found.servers] == [(host, "real.test")]


def test_weights() -> None:
    """RFC 2782: in proportion among those of one priority, and 0 is not never."""
    weights = {"a": 0, "b": 10, "c": 30}
    records = [DnsRecord("s", "SRV", 1, host, 1, weight, 5) for host, weight in weights.items()]
    records.append(DnsRecord("s", "SRV", 1, "d", 2, 60000, 5))
    chance = random.Random(1)
    orders = ["".join(one.value for one in in_order(records, chance)) for _ in range(4000)]
    assert {order[3] for order in orders} == {"d"}
    assert {"".join(sorted(order)) for order in orders} == {"abcd"}
    first = {host: sum(order[0] == host for order in orders) / 4000 for host in weights}
    assert 0 < first["a"] < 0.1
    assert 0.15 < first["b"] < 0.35
    assert 0.6 < first["c"] < 0.85


def test_limit_keeps_the_order(tmp_path: Path) -> None:
    """Neither the preferred protocol nor chance goes before priority and weight."""
    values = {"smtp_mx_address_limit": "1", "smtp_randomize_addresses": "yes"}
    for _ in range(5):
        assert servers(tmp_path, "two:submission", SUBMISSION | values)[0] == BOTH[:1]
