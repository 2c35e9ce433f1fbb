"""What the real trivial-rewrite(8) decides, recorded from `sendmail -bv`."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from libmail.ipc.messages import ResolveFlag as F
from libmail.ipc.messages import ResolveReply
from libmail.lookup.context import LiveLookups
from libmail.lookup.destination import LocalDomains
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.lookup.resolving import AddressResolver, Resolved
from libmail.lookup.rewriting import Rewriter
from libmail.lookup.routing_params import ResolveParams, RewriteParams
from libmail.tables.maps import Maps
from libmail.tables.match import DomainList, StringList
from libmail.tables.table import TableOptions

PARAMS = ResolveParams(
    myhostname="mail.example.test",
    mydestination=("example.test", "both.test"),
    inet_interfaces=("127.0.0.1",),
    inet_protocols=("ipv4",),
    proxy_interfaces=(),
    virtual_alias_domains=("alias.test", "both.test"),
    virtual_mailbox_domains=("vmail.test",),
    relay_domains=("relay.test", "alias.test"),
    parent_domain_matches_subdomains=("relay_domains",),
    local_transport="local:mail.example.test",
    virtual_transport="virtual",
    relay_transport="relay",
    default_transport="smtp",
    relayhost="[relay.host]:99",
    transport_maps=(
        "inline:{ {tp.test=smtp:foo} {empty.test=:} {nh.test=:[nh]:1} {only.test=slow}"
        " {.sub.test=slow:sub} {u@tp.test=error:no such} {w@tp.test=error:}"
        " {plus@tp.test=discard:} }",
    ),
    relocated_maps=("inline:{moved@example.test=new@place.test}",),
    relocated_prefix_enable=True,
    sender_dependent_relayhost_maps=(
        "inline:{ {me@example.org=[sdr]:25} {@sd.test=DUNNO} {<>=[nullrelay]} }",
    ),
    sender_dependent_default_transport_maps=("inline:{dt@example.org=slow:next}",),
    empty_address_relayhost_maps_lookup_key="<>",
    empty_address_default_transport_maps_lookup_key="<>",
    empty_address_recipient="MAILER-DAEMON",
    recipient_delimiter="+",
    resolve_dequoted_address=True,
    resolve_null_domain=False,
    resolve_numeric_domain=False,
    swap_bangpath=True,
    allow_percent_hack=True,
    allow_min_user=False,
    smtputf8_enable=True,
    show_user_unknown_table_name=True,
    helpful_warnings=True,
)
RELAY = "[relay.host]:99"
REWRITE = RewriteParams(
    myorigin="example.test",
    mydomain="example.test",
    remote_header_rewrite_domain="",
    append_at_myorigin=True,
    append_dot_mydomain=False,
    swap_bangpath=True,
    allow_percent_hack=True,
)


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)

    error = warning


def routing(params: ResolveParams) -> LiveLookups:
    """All that a resolution asks."""
    options = TableOptions(log=Lines())
    maps = ("transport_maps", "relocated_maps", "sender_dependent_relayhost_maps")
    titles = (*maps, "sender_dependent_default_transport_maps")
    names = StringList("mydestination", params.mydestination, options)
    return LiveLookups(
        {},
        maps={title: Maps(title, getattr(params, title), options) for title in titles},
        lists={
            "mydestination": LocalDomains(names, [ip_address("127.0.0.1"), ip_address("::1")]),
            **{
                title: StringList(title, getattr(params, title), options)
                for title in ("virtual_alias_domains", "virtual_mailbox_domains")
            },
            "relay_domains": DomainList(
                "relay_domains", params.relay_domains, options, parent=True
            ),
        },
    )


def resolved(
    address: str,
    sender: str = "s@o.test",
    params: ResolveParams = PARAMS,
    rewrite: RewriteParams = REWRITE,
) -> Resolved:
    """Decided by tables, and once more by what was recorded then."""
    resolver = AddressResolver(params, Rewriter(rewrite))
    record: list[Asked] = []
    lookups = RecordingLookups(routing(params), record)
    first = asyncio.run(resolver.resolve(lookups, sender, address))
    assert asyncio.run(resolver.resolve(ReplayedLookups(record), sender, address)) == first
    return first


def resolve(address: str, sender: str = "s@o.test", params: ResolveParams = PARAMS) -> ResolveReply:
    return resolved(address, sender, params).reply


LOCAL = F.LOCAL | F.FINAL
BAD = (F.ERROR | F.DEFAULT, "error", "5.1.3 bad address syntax")


@pytest.mark.parametrize(
    ("address", "flags", "transport", "nexthop", "recipient"),
    [
        ("u@example.test", LOCAL, "local", "mail.example.test", "u@example.test"),
        ("u%remote.test@example.test", F.DEFAULT, "smtp", RELAY, "u@remote.test"),
        ("host!u@example.test", F.DEFAULT, "smtp", RELAY, "u@host"),
        ("a%b@relay.test", F.RELAY | F.ROUTED, "relay", RELAY, "a%b@relay.test"),
        ("u@x.relay.test", F.RELAY, "relay", RELAY, "u@x.relay.test"),
        ("u@vmail.test", F.VIRTUAL | F.FINAL, "virtual", "vmail.test", "u@vmail.test"),
        ("u@alias.test", F.ALIAS | F.FINAL, "error",
         "5.1.1 User unknown in virtual alias table", "u@alias.test"),
        ("u@default.test", F.DEFAULT, "smtp", RELAY, "u@default.test"),
        ("u@both.test", LOCAL, "local", "mail.example.test", "u@both.test"),
        ("@example.test", LOCAL, "local", "mail.example.test", "MAILER-DAEMON@example.test"),
        ("", LOCAL, "local", "mail.example.test", "MAILER-DAEMON@mail.example.test"),
        ("u@[127.0.0.1]", LOCAL, "local", "mail.example.test", "u@[127.0.0.1]"),
        ("u@[IPv6:::1]", LOCAL, "local", "mail.example.test", "u@[IPv6:::1]"),
        ("u@[192.0.2.7]", F.DEFAULT, "smtp", RELAY, "u@[192.0.2.7]"),
        ("u@under_score.test", F.DEFAULT, "smtp", RELAY, "u@under_score.test"),
        ("a@b@example.test", F.DEFAULT, "smtp", RELAY, "a@b"),
        ("a b@example.test", LOCAL, "local", "mail.example.test", "a b@example.test"),
        ("a@b@c.test", F.DEFAULT | F.ROUTED, "smtp", RELAY, "a@b@c.test"),
        ("moved@example.test", LOCAL, "error", "5.1.6 User has moved to new@place.test",
         "moved@example.test"),
        ("u@tp.test", F.DEFAULT, "error", "no such", "u@tp.test"),
        ("w@tp.test", F.DEFAULT, "error", "Address is undeliverable", "w@tp.test"),
        ("v@tp.test", F.DEFAULT, "smtp", "foo", "v@tp.test"),
        ("plus+x@tp.test", F.DEFAULT, "discard", "tp.test", "plus+x@tp.test"),
        ("x@empty.test", F.DEFAULT, "smtp", RELAY, "x@empty.test"),
        ("x@nh.test", F.DEFAULT, "smtp", "[nh]:1", "x@nh.test"),
        ("x@only.test", F.DEFAULT, "slow", "only.test", "x@only.test"),
        ("x@a.sub.test", F.DEFAULT, "slow", "sub", "x@a.sub.test"),
        ("x@sub.test", F.DEFAULT, "smtp", RELAY, "x@sub.test"),
        ("u@bücher.test", F.DEFAULT, "smtp", RELAY, "u@bücher.test"),
        *[
            (address, *BAD, address)
            for address in ("u@", "u@1.2.3.4", "u@[bad]", "u@[bad", "u@host..bad",
                            "-d@example.test", "u@-bad.test", "u@" + "x" * 64 + ".test")
        ],
    ],
)  # fmt: skip
def test_resolve(address: str, flags: F, transport: str, nexthop: str, recipient: str) -> None:
    reply = resolve(address)
    assert reply == (reply.flags, transport, nexthop, recipient)
    assert reply.flags & ~F.ANY_SENDER == flags


@pytest.mark.parametrize(
    ("address", "by_sender"),
    [("u@example.test", False), ("u@x.test", True), ("u@host..bad", False)],
)
def test_who_sends_may_matter(address: str, by_sender: bool) -> None:
    plain = replace(
        PARAMS, sender_dependent_relayhost_maps=(), sender_dependent_default_transport_maps=()
    )
    assert resolve(address, params=plain).flags & F.ANY_SENDER
    table = ("inline:{ {@o.test=smtp:x} }",)
    for params in (
        replace(plain, sender_dependent_relayhost_maps=table),
        replace(plain, sender_dependent_default_transport_maps=table),
    ):
        assert bool(resolve(address, params=params).flags & F.ANY_SENDER) is not by_sender


@pytest.mark.parametrize(
    ("sender", "address", "transport", "nexthop"),
    [
        ("me@example.org", "x@d.test", "smtp", "[sdr]:25"),
        ("me@example.org", "x@relay.test", "relay", "[sdr]:25"),
        ("y@sd.test", "x@d.test", "smtp", RELAY),
        ("", "x@d.test", "smtp", "[nullrelay]"),
        ("dt@example.org", "x@d.test", "slow", "next"),
        ("dt@example.org", "x@relay.test", "relay", RELAY),
    ],
)
def test_by_sender(sender: str, address: str, transport: str, nexthop: str) -> None:
    reply = resolve(address, sender)
    assert (reply.transport, reply.nexthop) == (transport, nexthop)


def test_failing_table_is_no_answer() -> None:
    params = replace(PARAMS, transport_maps=("fail:broken",))
    assert resolve("x@d.test", params=params).flags == F.FAIL


@pytest.mark.parametrize("local", ["a%b.test", "b.test!a"])
def test_routing_that_is_not_followed_is_told(local: str) -> None:
    """The next host may follow it, and so may a program that gets the mail here."""
    params = replace(PARAMS, allow_percent_hack=False, swap_bangpath=False)
    rewrite = replace(REWRITE, allow_percent_hack=False, swap_bangpath=False)
    for domain, flags in (("example.test", LOCAL), ("relay.test", F.RELAY)):
        address = f"{local}@{domain}"
        reply = resolved(address, params=params, rewrite=rewrite).reply
        assert (reply.recipient, reply.flags & ~F.ANY_SENDER) == (address, flags | F.ROUTED)


def test_resolve_numeric_domain() -> None:
    params = replace(PARAMS, resolve_numeric_domain=True)
    assert resolve("u@192.0.2.7", params=params).recipient == "u@[192.0.2.7]"


def test_resolve_null_domain() -> None:
    params = replace(PARAMS, resolve_null_domain=True)
    assert resolve("u@", params=params).recipient == "u@mail.example.test"


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("a%b@example.test", "a@b.example.test"),
        ("b!a@example.test", "a@b.example.test"),
        ("a@b@example.test", "a@b.example.test"),
        ("a%b.test@example.test", "a@b.test"),
        ("a%[192.0.2.7]@example.test", "a@[192.0.2.7]"),
        ("a%both.test@example.test", "a@both.test"),
        ("a!@", "@a.example.test"),
        ("a!b@", "b@a.example.test"),
        ("a%b@", "a@b.example.test"),
        ("a@b@", "a@b.example.test"),
        ("a%b", "a@b.example.test"),
    ],
)
def test_what_is_inside_is_completed(address: str, recipient: str) -> None:
    reply = resolved(address, rewrite=replace(REWRITE, append_dot_mydomain=True)).reply
    assert not reply.flags & F.ERROR
    assert reply.recipient == recipient


@pytest.mark.parametrize("address", ["a@", "@", "a@.", "a@b..", "@@", "a b@"])
def test_nothing_is_inside(address: str) -> None:
    assert resolve(address).flags & F.ERROR


def test_quoted_address_stays_whole() -> None:
    params = replace(PARAMS, resolve_dequoted_address=False)
    assert resolve("a@b@example.test", params=params) == (
        int(LOCAL | F.ANY_SENDER), "local", "mail.example.test", "a@b@example.test",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("address", "warning"),
    [
        ("u@both.test", "do not list domain both.test in BOTH mydestination and "
         "virtual_alias_domains"),
        ("u@alias.test", "do not list domain alias.test in BOTH virtual_alias_domains and "
         "relay_domains"),
        ("u@[bad]", "valid_ipv4_hostaddr: invalid character 98(decimal): bad"),
    ],
)  # fmt: skip
def test_mistakes_are_told(address: str, warning: str) -> None:
    assert resolved(address).warnings == (warning,)


def test_what_failed_is_told() -> None:
    params = replace(PARAMS, transport_maps=("fail:broken",))
    assert resolved("x@d.test", params=params).warnings == ("transport_maps lookup failure",)


@pytest.mark.parametrize(
    "local",
    ["(c)", "a(b", "a)b", 'Quo"te', "b\\s", "<x>", "a,b", "a;b", "a[b", "[x]", " x", "x ", "a  b",
     '"', "\\", ".", "a..b", "a'b"],
)  # fmt: skip
def test_a_name_is_what_it_is(local: str) -> None:
    """In the internal form nothing is a quote, a comment or white space that could go."""
    found = resolve(f"{local}@vmail.test")
    assert (found.transport, found.recipient) == ("virtual", f"{local}@vmail.test")
    correct = replace(PARAMS, resolve_dequoted_address=False)
    assert resolve(f"{local}@vmail.test", params=correct).recipient == f"{local}@vmail.test"
