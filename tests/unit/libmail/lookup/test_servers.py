"""From a next hop to the servers to try."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path

import pytest

from daemons.smtp.settings import SmtpParams
from libmail.config import open_config
from libmail.dns import DnsAnswer, DnsError, DnsRecord, NotFound, TempFail
from libmail.lookup.context import LiveLookups, Lookups
from libmail.lookup.next_hop import (
    BadDestination,
    Destination,
    parse_destination,
    split_destinations,
)
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.lookup.servers import NoServers, Server, ServerChoice, Servers, select_servers

DESTINATIONS = [
    ("example.org", False, Destination("example.org", 25)),
    ("example.org:587", False, Destination("example.org", 587)),
    ("[mx.example.org]", False, Destination("mx.example.org", 25, True)),
    ("[192.0.2.1]:26", False, Destination("192.0.2.1", 26, True)),
    ("[2001:db8::1]:26", False, Destination("2001:db8::1", 26, True)),
    ("[ipv6:2001:db8::1]", False, Destination("2001:db8::1", 25, True)),
    ("2001:db8::1", False, Destination("2001:db8::1", 25)),
    ("unix:private/lmtp", True, Destination(path="private/lmtp")),
    ("inet:host:24", True, Destination("host", 24, True)),
    ("inet:[::1]", True, Destination("::1", 25, True)),
    ("host", True, Destination("host", 25, True)),
]


@pytest.mark.parametrize(
    ("text", "lmtp", "want"), DESTINATIONS, ids=[case[0] for case in DESTINATIONS]
)
def test_destination(text: str, lmtp: bool, want: Destination) -> None:
    assert parse_destination(text, 25, lmtp=lmtp) == want


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
    """mx: by domain, "" is a null MX. hosts: addresses by name."""

    def __init__(
        self, mx: dict[str, list[tuple[int, str]] | DnsError], hosts: dict[str, list[str]]
    ) -> None:
        self._mx, self._hosts = mx, hosts

    async def lookup(self, name: str, rrtype: str) -> DnsAnswer:
        if rrtype == "MX":
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


def servers(folder: Path, nexthop: str, **values: str) -> tuple[list[str], bool]:
    pairs = {"inet_protocols": "ipv4", "smtp_randomize_addresses": "no", **values}
    (folder / "main.cf").write_text("".join(f"{n} = {v}\n" for n, v in pairs.items()))
    params = open_config(str(folder)).load(SmtpParams)
    choice = ServerChoice(params, "ipv4", frozenset(["192.0.2.99"]))
    destination = parse_destination(nexthop, 25, lmtp=False)
    loop_detect = destination.port == 25
    record: list[Asked] = []

    async def find(lookups: Lookups) -> Servers:
        return await choice.servers(lookups, destination, loop_detect=loop_detect)

    async def outcome(lookups: Lookups) -> Servers | NoServers:
        try:
            return await find(lookups)
        except NoServers as error:
            return error

    live = LiveLookups({}, resolver=FakeDns(MX, HOSTS))  # type: ignore[arg-type]
    found = asyncio.run(outcome(RecordingLookups(live, record)))
    # The same again without DNS, and chance decides as it did.
    again = asyncio.run(outcome(ReplayedLookups(record)))
    if isinstance(found, NoServers):
        assert vars(again) == vars(found)
        raise found
    assert again == found
    return [server.address for server in found.servers], found.among_mx


def test_chance_is_recorded(tmp_path: Path) -> None:
    values = {"smtp_randomize_addresses": "yes", "smtp_mx_address_limit": "0"}
    found, _ = servers(tmp_path, "many", **values)
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
        servers(tmp_path, nexthop, **values)
    assert (caught.value.dsn, caught.value.reason) == (dsn, reason)
