"""Restrictions decided over a context that is made of dictionaries, and over its recording."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import SimpleNamespace

import pytest

from libmail.config import Config
from libmail.config.main_cf import Entry
from libmail.dns.answers import DnsRecord, NotFound, TempFail
from libmail.ipc.messages import Nexthop, ResolveFlag, ResolveReply, Transport
from libmail.log import LOG, Fatal
from libmail.lookup.access import address_parents, domain_parents
from libmail.lookup.context import LiveLookups, Lookups, RouteQuestion
from libmail.lookup.dnslists import matches_pattern, valid_pattern
from libmail.lookup.facts import Client, Facts, NameStatus, Verdict
from libmail.lookup.lists import compile_lists
from libmail.lookup.params import RestrictionParams
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.lookup.restrictions import Restrictions
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList

OURS = {"example.test": ResolveFlag.LOCAL, "relayed.test": ResolveFlag.RELAY}
REASONS = {
    "bad.relayed.test": ("error", "5.7.9 never"),
    "later.relayed.test": ("retry", "5.1.2 not now"),
    "sometime.relayed.test": ("retry", "without a code"),
}


async def resolve(sender: str, address: str) -> ResolveReply:
    domain = address.rpartition("@")[2]
    if domain == "fail.test":
        return ResolveReply(int(ResolveFlag.FAIL), Transport(""), Nexthop(""), address)
    flag = OURS.get(domain, ResolveFlag.DEFAULT)
    if domain in REASONS:
        transport, reason = REASONS[domain]
        return ResolveReply(int(ResolveFlag.RELAY), Transport(transport), Nexthop(reason), address)
    return ResolveReply(int(flag), Transport("smtp"), Nexthop(domain), address)


@dataclass
class FakeDns:
    """records: (name, type) to values; a name in `broken` has no answer now."""

    records: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()

    async def lookup(self, name: str, rrtype: str) -> SimpleNamespace:
        if name in self.broken:
            raise TempFail(name, rrtype, "try again")
        values = self.records.get((name, rrtype))
        if not values:
            raise NotFound(name, rrtype, "not found")
        return SimpleNamespace(records=tuple(DnsRecord(name, rrtype, 60, v) for v in values))


DNS = FakeDns(
    {
        ("known.test", "A"): ("192.0.2.1",),
        ("2.113.0.203.rbl.test", "A"): ("127.0.0.2",),
        ("2.113.0.203.rbl.test", "TXT"): ("see there",),
        ("null.test", "MX"): ("",),
        ("mxhost.test", "MX"): ("mx.mxhost.test",),
        ("mx.mxhost.test", "A"): ("192.0.2.66",),
        ("known.test", "NS"): ("ns.known.test",),
        ("ns.known.test", "A"): ("192.0.2.53",),
        ("mx.known.test", "A"): ("192.0.2.66",),
        ("known.test", "MX"): ("mx.known.test",),
        ("2.113.0.203.wl.test", "A"): ("127.0.0.2",),
        ("host.known.test.wl.test", "A"): ("127.0.0.2",),
        ("known.test.rhs.test", "A"): ("127.0.0.2",),
        ("known.test.rhs.test", "TXT"): ("costs $5 ${x",),
        ("odd.test", "MX"): ("mx.mxhost.test", ""),
        ("2.113.0.203.many.test", "A"): ("127.0.0.2",),
        ("2.113.0.203.many.test", "TXT"): ("one", "two"),
        ("numeric.test", "MX"): ("192.0.2.25",),
        ("hostless.test", "MX"): ("gone.test",),
    },
    frozenset({"broken.test"}),
)


class World:
    """A configuration with its tables open, and the facts of a session."""

    def __init__(self, settings: Mapping[str, str], **facts: object) -> None:
        values = {
            "compatibility_level": "3.6",
            "myhostname": "mail.example.test",
            "mydomain": "example.test",
            "mynetworks": "127.0.0.0/8",
            "relay_domains": "relayed.test",
            "virtual_mailbox_domains": "",
            "local_recipient_maps": "inline:{alice=x}",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            **settings,
        }
        config = Config("", [Entry(name, value, "", 0) for name, value in values.items()])
        params = config.load(RestrictionParams)
        classes = {name: config.list(name) for name in params.smtpd_restriction_classes}
        compiled = compile_lists(params, classes)
        titles: tuple[str, ...] = (
            "canonical_maps",
            "recipient_canonical_maps",
            "sender_canonical_maps",
        )
        titles += ("virtual_alias_maps", "virtual_mailbox_maps", "relay_recipient_maps")
        titles += ("local_recipient_maps", "rbl_reply_maps", "relay_clientcerts")
        self.maps = {title: Maps(title, config.list(title)) for title in titles}
        self.maps |= {table: Maps(table, [table]) for table in compiled.tables}
        self.hosts = {"mynetworks": AddressList("mynetworks", params.mynetworks)}
        self.hosts["inet_interfaces"] = AddressList("inet_interfaces", "192.0.2.9")
        self.hosts["proxy_interfaces"] = AddressList("proxy_interfaces", "")
        self.restrictions = Restrictions(params, compiled)
        self.facts = Facts(
            client=Client(address="203.0.113.2"),
            helo_name="client.known.test",
            protocol="ESMTP",
            where="RCPT",
        )
        mail = self.facts.mail
        mail.sender, mail.recipient = "a@known.test", "alice@example.test"
        for name, value in facts.items():
            self.know(name, value)
        self.asked: list[Asked] = []

    def know(self, name: str, value: object) -> None:
        """Sets one of the facts, by its name in its group."""
        name = name.removeprefix("client_")
        if name in Client._fields:
            self.facts.client = self.facts.client._replace(**{name: value})  # type: ignore[arg-type]
        else:
            setattr(self.facts.mail if hasattr(self.facts.mail, name) else self.facts, name, value)

    def plain(self) -> LiveLookups:
        services = {RouteQuestion: lambda question: resolve(question.where, question.key)}
        return LiveLookups(services, maps=self.maps, hosts=self.hosts, resolver=DNS)  # type: ignore[arg-type]

    def live(self) -> RecordingLookups:
        return RecordingLookups(self.plain(), self.asked)

    def replayed(self) -> ReplayedLookups:
        return ReplayedLookups(self.asked)

    def decide(self, lookups: Lookups) -> Verdict:
        return asyncio.run(self.restrictions.recipient(self.facts, lookups))


def answer(verdict: Verdict) -> str:
    return "" if verdict.reply is None else verdict.reply.line


RCPT = "smtpd_recipient_restrictions"
RELAY = "smtpd_relay_restrictions"
RELAY_NO = "reject_unauth_destination"
CLIENT = "smtpd_client_restrictions"
RHSBL = "smtpd_sender_restrictions"
TEMPLATE = "default_rbl_reply"
CASES: dict[str, tuple[dict[str, str], dict[str, object], str]] = {
    "a list of addresses without the address": (
        {CLIENT: "permit_dnswl_client wl.test, reject_rbl_client rbl.test"},
        {"client_address": "unknown"},
        "",
    ),
    "reverse name that is refused": (
        {CLIENT: "check_reverse_client_hostname_access inline:{bad.test=DEFER_IF_PERMIT}"},
        {"reverse_name": "bad.test"},
        "450 4.7.1 <bad.test>: Unverified Client host rejected: Service unavailable",
    ),
    "dot at the end of a HELO name in a list": (
        {CLIENT: "reject_rhsbl_helo rhs.test"},
        {"helo_name": "known.test."},
        "",
    ),
    "a DNS list without its domain": ({CLIENT: "reject_rbl_client"}, {}, ""),
    "all reasons of a list": (
        {CLIENT: "reject_rbl_client many.test"},
        {},
        "554 5.7.1 Service unavailable; Client host [203.0.113.2] blocked using many.test;"
        " one / two",
    ),
    "what the session knows, in a reply": (
        {CLIENT: "reject_rbl_client rbl.test", TEMPLATE: "550 $client_port $server_name $sender"},
        {"client_port": "2525"},
        "550 5.7.1 2525 mail.example.test a@known.test",
    ),
    "empty labels of a name": (
        {RCPT: "check_helo_access inline:{test=REJECT}"},
        {"helo_name": "foo..test"},
        "",
    ),
    "an address as MX host": (
        {RCPT: "check_sender_mx_access inline:{192.0.2.25=REJECT}"},
        {"sender": "a@numeric.test"},
        "554 5.7.1 <a@numeric.test>: Sender address rejected: Access denied",
    ),
    "backup of a domain that cannot be looked up": (
        {RELAY: "permit_mx_backup, reject_unauth_destination"},
        {"recipient": "x@broken.test"},
        "450 4.4.4 <x@broken.test>: Recipient address rejected:"
        " Unable to look up mail exchanger information: try again",
    ),
    "backup of a domain with hosts that cannot be found": (
        {RELAY: "permit_mx_backup, reject_unauth_destination"},
        {"recipient": "x@hostless.test"},
        "450 4.4.4 <x@hostless.test>: Recipient address rejected:"
        " Unable to look up mail exchanger host gone.test: Name or service not known",
    ),
    "backup of a domain with a null MX": (
        {RELAY: "permit_mx_backup, reject_unauth_destination"},
        {"recipient": "x@null.test"},
        "554 5.7.1 <x@null.test>: Relay access denied",
    ),
    "backup of a domain with an address as MX host": (
        {RELAY: "permit_mx_backup, reject_unauth_destination"},
        {"recipient": "x@numeric.test"},
        "554 5.7.1 <x@numeric.test>: Relay access denied",
    ),
    "MX hosts of a HELO name with a dot at its end": (
        {RCPT: "check_helo_mx_access inline:{ {mx.known.test=REJECT}, {192.0.2.1=DEFER} }"},
        {"helo_name": "known.test."},
        "450 4.7.1 <known.test.>: Helo command rejected: Access denied",
    ),
    "a HELO name that is an address": (
        {RCPT: "check_helo_mx_access inline:{192.0.2.7=REJECT}"},
        {"helo_name": "192.0.2.7"},
        "554 5.7.1 <192.0.2.7>: Helo command rejected: Access denied",
    ),
    "addresses of a host, not its name": (
        {RCPT: "check_helo_a_access inline:{ {known.test=REJECT}, {192.0.2.1=DEFER} }"},
        {"helo_name": "known.test"},
        "450 4.7.1 <known.test>: Helo command rejected: Access denied",
    ),
    "name servers of an address literal": (
        {RCPT: "check_sender_ns_access inline:{192.0.2.7=REJECT}, permit_auth_destination"},
        {"sender": "x@[192.0.2.7]"},
        "",
    ),
    "MX hosts of a domain with a dot at its end": (
        {RCPT: "check_sender_mx_access inline:{mx.known.test=REJECT}, permit_auth_destination"},
        {"sender": "x@known.test."},
        "",
    ),
    "name servers of a domain with a dot at its end": (
        {RCPT: "check_sender_ns_access inline:{ns.known.test=REJECT}, permit_auth_destination"},
        {"sender": "x@known.test."},
        "",
    ),
    "warn_if_reject before a table that names restrictions": (
        {
            RCPT: "warn_if_reject check_sender_access inline:{ {known.test=reject_unknown_helo_"
            "hostname reject} }, permit_auth_destination"
        },
        {},
        "",
    ),
    "warn_if_reject in a class ends with it": (
        {"smtpd_restriction_classes": "odd", "odd": "warn_if_reject", RCPT: "odd, reject"},
        {},
        "554 5.7.1 <alice@example.test>: Recipient address rejected: Access denied",
    ),
    "a HELO name that only begins like a literal": (
        {RCPT: "reject_invalid_helo_hostname"},
        {"helo_name": "[known.test"},
        "501 5.5.2 <[known.test>: Helo command rejected: invalid ip address",
    ),
    "patterns see addresses in lower case": (
        {RCPT: "check_sender_access regexp:{ {/^(.*)@/ 550 $$1} }"},
        {"sender": "Anna@Known.test"},
        "550 5.7.1 <Anna@Known.test>: Sender address rejected: anna",
    ),
    "template that asks about an unknown name": (
        {
            "smtpd_sender_restrictions": "reject_rhsbl_sender rhs.test",
            "default_rbl_reply": "554 no${nonsense?x}${nonsense:t}",
        },
        {},
        "554 5.7.1 not",
    ),
    "template that leaves no text": (
        {
            "smtpd_sender_restrictions": "reject_rhsbl_sender rhs.test",
            "default_rbl_reply": "554 5.7.9 ${recipient:x}",
        },
        {},
        "554 5.7.9 Service unavailable",
    ),
    "name servers of a HELO name with a dot at its end": (
        {RCPT: "check_helo_ns_access inline:{ns.known.test=REJECT}"},
        {"helo_name": "known.test."},
        "",
    ),
    "no backup": (
        {RELAY: "permit_mx_backup, reject_unauth_destination"},
        {"recipient": "x@mxhost.test"},
        "554 5.7.1 <x@mxhost.test>: Relay access denied",
    ),
    "known recipient": ({}, {}, ""),
    "relaying": (
        {},
        {"recipient": "x@other.test"},
        "554 5.7.1 <x@other.test>: Relay access denied",
    ),
    "relay domain": ({}, {"recipient": "x@relayed.test"}, ""),
    "mynetworks": ({}, {"recipient": "x@other.test", "client_address": "127.0.0.1"}, ""),
    "resolver down": (
        {},
        {"recipient": "x@fail.test"},
        "451 4.3.0 <x@fail.test>: Temporary lookup failure",
    ),
    "unknown user": (
        {},
        {"recipient": "x@example.test"},
        "550 5.1.1 <x@example.test>: Recipient address rejected:"
        " User unknown in local recipient table",
    ),
    "routed to error": (
        {},
        {"recipient": "x@bad.relayed.test"},
        "550 5.7.9 <x@bad.relayed.test>: Recipient address rejected: never",
    ),
    "routed to retry": (
        {},
        {"recipient": "x@later.relayed.test"},
        "450 4.1.2 <x@later.relayed.test>: Recipient address rejected: not now",
    ),
    "routed to retry without a status": (
        {},
        {"recipient": "x@sometime.relayed.test"},
        "450 4.1.1 <x@sometime.relayed.test>: Recipient address rejected: without a code",
    ),
    "postmaster": ({}, {"recipient": "postmaster@example.test"}, ""),
    "restrictions with arguments in a table": (
        {RCPT: "check_client_access inline:{ {203.0.113=sleep 0, reject_rbl_client rbl.test} }"},
        {},
        "554 5.7.1 Service unavailable; Client host [203.0.113.2] blocked using rbl.test;"
        " see there",
    ),
    "a pause without its length in a table": (
        {RCPT: "check_client_access inline:{203.0.113=sleep}"},
        {},
        "451 4.3.5 Server configuration error",
    ),
    "soft_bounce": (
        {"soft_bounce": "yes", RCPT: "reject"},
        {},
        "454 4.7.1 <alice@example.test>: Recipient address rejected: Access denied",
    ),
    "class": (
        {"smtpd_restriction_classes": "strict", "strict": "reject", RCPT: "strict"},
        {},
        "554 5.7.1 <alice@example.test>: Recipient address rejected: Access denied",
    ),
    "unknown name": ({RCPT: "nonsense"}, {}, "451 4.3.5 Server configuration error"),
    "warn_if_reject": ({RCPT: "warn_if_reject, reject"}, {}, ""),
    "client by network": (
        {CLIENT: "check_client_access inline:{203.0.113=REJECT}"},
        {},
        "554 5.7.1 <unknown[203.0.113.2]>: Client host rejected: Access denied",
    ),
    "null sender": (
        {"smtpd_sender_restrictions": "inline:{<>=REJECT}"},
        {"sender": ""},
        "554 5.7.1 <>: Sender address rejected: Access denied",
    ),
    "table failure": (
        {"smtpd_sender_restrictions": "check_sender_access fail:x"},
        {},
        "451 4.3.5 <a@known.test>: Sender address rejected: Server configuration error",
    ),
    "defer_if_permit": (
        {RCPT: "defer_if_permit, permit"},
        {},
        "450 4.7.0 <alice@example.test>: Recipient address rejected: defer_if_permit requested",
    ),
    "defer_if_reject": (
        {RCPT: "defer_if_reject, reject"},
        {},
        "450 4.7.0 <alice@example.test>: Recipient address rejected: defer_if_reject requested",
    ),
    "dsn of a sender": (
        {"smtpd_sender_restrictions": "inline:{ {known.test=550 5.1.1 no} }"},
        {},
        "550 5.1.7 <a@known.test>: Sender address rejected: no",
    ),
    "rbl": (
        {CLIENT: "reject_rbl_client rbl.test=127.0.0.[1..3]"},
        {},
        "554 5.7.1 Service unavailable; Client host [203.0.113.2] blocked using rbl.test;"
        " see there",
    ),
    "sender domain": (
        {"smtpd_sender_restrictions": "reject_unknown_sender_domain"},
        {"sender": "a@nowhere.test"},
        "450 4.1.8 <a@nowhere.test>: Sender address rejected: Domain not found",
    ),
    "null MX": (
        {"smtpd_sender_restrictions": "reject_unknown_sender_domain"},
        {"sender": "a@null.test"},
        "550 5.7.27 <a@null.test>: Sender address rejected:"
        " Domain null.test does not accept mail (nullMX)",
    ),
    "DNS down": (
        {
            "smtpd_sender_restrictions": "reject_unknown_sender_domain",
            "unknown_address_reject_code": "550",
        },
        {"sender": "a@broken.test"},
        "450 4.1.8 <a@broken.test>: Sender address rejected: Domain not found",
    ),
    "mx access": (
        {"smtpd_sender_restrictions": "check_sender_mx_access inline:{192.0.2.66=REJECT}"},
        {"sender": "a@mxhost.test"},
        "554 5.7.1 <a@mxhost.test>: Sender address rejected: Access denied",
    ),
    "null MX among others": (
        {"smtpd_sender_restrictions": "reject_unknown_sender_domain"},
        {"sender": "a@odd.test"},
        "550 5.7.27 <a@odd.test>: Sender address rejected:"
        " Domain odd.test does not accept mail (nullMX)",
    ),
    "helo with a final dot": (
        {
            "smtpd_helo_restrictions": "reject_unknown_helo_hostname",
            "unknown_hostname_reject_code": "550",
        },
        {"helo_name": "known.test."},
        "550 5.7.1 <known.test.>: Helo command rejected: Host not found",
    ),
    "dsn of a sender, that there is not": (
        {"smtpd_sender_restrictions": "inline:{ {known.test=550 5.1.99 no} }"},
        {},
        "550 5.1.0 <a@known.test>: Sender address rejected: no",
    ),
    "dsn of a recipient, that there is not": (
        {RCPT: "inline:{ {example.test=550 5.1.10 no} }"},
        {},
        "550 5.1.0 <alice@example.test>: Recipient address rejected: no",
    ),
    "recipient domain with a null MX": (
        {RELAY: "reject_unknown_recipient_domain, reject"},
        {"recipient": "x@null.test"},
        "556 5.1.10 <x@null.test>: Recipient address rejected:"
        " Domain null.test does not accept mail (nullMX)",
    ),
    "dsn of a client, about an address": (
        {CLIENT: "check_client_access inline:{ {203.0.113=550 5.1.10 no} }"},
        {},
        "550 5.0.0 <unknown[203.0.113.2]>: Client host rejected: no",
    ),
    "defer_if_reject ends with its stage": (
        {CLIENT: "defer_if_reject", RCPT: "reject"},
        {},
        "554 5.7.1 <alice@example.test>: Recipient address rejected: Access denied",
    ),
    "defer_if_permit does not": (
        {CLIENT: "defer_if_permit", RCPT: "permit"},
        {},
        "450 4.7.0 <unknown[203.0.113.2]>: Client host rejected: defer_if_permit requested",
    ),
    "allowlist and our recipient": ({RELAY: f"permit_dnswl_client wl.test, {RELAY_NO}"}, {}, ""),
    "own names are listed": ({}, {"recipient": "MAILER-DAEMON@example.test"}, ""),
    "double_bounce_sender is listed": (
        {"double_bounce_sender": "dblb"},
        {"recipient": "dblb@example.test"},
        "",
    ),
    "and what it is not, is not": (
        {"double_bounce_sender": "dblb", "show_user_unknown_table_name": "no"},
        {"recipient": "double-bounce@example.test"},
        "550 5.1.1 <double-bounce@example.test>: Recipient address rejected: User unknown",
    ),
    "recipient_canonical_maps know a sender": (
        {
            "smtpd_sender_restrictions": "reject_unlisted_sender",
            "recipient_canonical_maps": "inline:{s@example.test=alice}",
        },
        {"sender": "s@example.test"},
        "",
    ),
    "sender_canonical_maps know no recipient": (
        {
            "sender_canonical_maps": "inline:{s@example.test=alice}",
            "show_user_unknown_table_name": "no",
        },
        {"recipient": "s@example.test"},
        "550 5.1.1 <s@example.test>: Recipient address rejected: User unknown",
    ),
    "no_unknown_recipient_checks: recipients": (
        {"receive_override_options": "no_unknown_recipient_checks"},
        {"recipient": "nosuch@example.test"},
        "",
    ),
    "no_unknown_recipient_checks: senders": (
        {
            "receive_override_options": "no_unknown_recipient_checks",
            "smtpd_sender_restrictions": "reject_unlisted_sender",
            "smtpd_reject_unlisted_sender": "yes",
        },
        {"sender": "nosuch@example.test"},
        "",
    ),
    "template": (
        {RHSBL: "reject_rhsbl_sender rhs.test", TEMPLATE: "$rbl_code 5.1.1 $rbl_txt|$rbl_reason"},
        {},
        "554 5.1.7 costs $5 ${x|costs $5 ${x",
    ),
    "template and characters that values may bring": (
        {
            RHSBL: "reject_rhsbl_sender rhs.test",
            TEMPLATE: "$rbl_code 5.1.1 $rbl_txt",
            "smtpd_expansion_filter": r"0123456789cost\40",
        },
        {},
        "554 5.1.7 costs _5 ___",
    ),
    "template for a list with its pattern": (
        {
            RHSBL: "reject_rhsbl_sender rhs.test=127.0.0.2",
            "rbl_reply_maps": "inline:{ {rhs.test = 550 by domain}, {rhs.test=127.0.0.2 = 551 x} }",
        },
        {},
        "554 5.7.1 Service unavailable; Sender address [a@known.test] blocked using rhs.test;"
        " costs $5 ${x",
    ),
    "template without a code": (
        {RHSBL: "reject_rhsbl_sender rhs.test", TEMPLATE: "just text"},
        {},
        "450 4.7.1 Service unavailable",
    ),
    "template with a code that does not refuse": (
        {RHSBL: "reject_rhsbl_sender rhs.test", TEMPLATE: "250 ok"},
        {},
        "450 4.7.1 Service unavailable",
    ),
    "template of an unknown name": (
        {RHSBL: "reject_rhsbl_sender rhs.test", TEMPLATE: "554 $nonsense"},
        {},
        "451 4.3.5 Server configuration error",
    ),
    "rbl_reply_maps that fail": (
        {RHSBL: "reject_rhsbl_sender rhs.test", "rbl_reply_maps": "fail:x"},
        {},
        "451 4.3.5 Server configuration error",
    ),
    "helo": (
        {"smtpd_helo_restrictions": "reject_non_fqdn_helo_hostname"},
        {"helo_name": "short"},
        "504 5.5.2 <short>: Helo command rejected: need fully-qualified hostname",
    ),
    "client name": (
        {CLIENT: "reject_unknown_client_hostname", "unknown_client_reject_code": "550"},
        {"name_status": NameStatus.NOT_FOUND},
        "550 5.7.25 Client host rejected: cannot find your hostname, [203.0.113.2]",
    ),
    "client name, temporarily": (
        {CLIENT: "reject_unknown_client_hostname", "unknown_client_reject_code": "550"},
        {"name_status": NameStatus.TRY_AGAIN},
        "450 4.7.25 Client host rejected: cannot find your hostname, [203.0.113.2]",
    ),
}


@pytest.mark.parametrize(("settings", "facts", "want"), CASES.values(), ids=CASES)
def test_recipient(settings: dict[str, str], facts: dict[str, object], want: str) -> None:
    world = World(settings, **facts)
    verdict = world.decide(world.live())
    assert answer(verdict) == want
    # The same again from what was recorded, without tables, DNS and services.
    assert world.decide(world.replayed()) == verdict


# A stranger chooses, or buys, what these look at: none of them may open a relay.
STRANGERS = {
    "permit_dnswl_client": "permit_dnswl_client wl.test",
    "permit_rhswl_client": "permit_rhswl_client wl.test",
    **{
        f"check_{who}_{kind}_access": f"check_{who}_{kind}_access inline:{{{found}=OK}}"
        for who in ("client", "reverse_client_hostname", "helo", "sender", "recipient")
        for kind, found in (("mx", "192.0.2.66"), ("ns", "192.0.2.53"), ("a", "192.0.2.1"))
    },
    "reverse name": "check_reverse_client_hostname_access inline:{known.test=OK}",
    "reverse name, by a class": "check_reverse_client_hostname_access inline:{known.test=permit}",
}


@pytest.mark.parametrize("restriction", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("stage", ["client", "helo", "sender", "relay", "recipient"])
def test_no_stranger_opens_a_relay(restriction: str, stage: str) -> None:
    lists = {RELAY: RELAY_NO, f"smtpd_{stage}_restrictions": f"{restriction}, {RELAY_NO}"}
    if stage == "recipient":
        lists[RELAY] = ""
    facts = {"client_name": "known.test", "reverse_name": "known.test", "helo_name": "known.test"}
    world = World(lists, **facts, recipient="x@known.test")
    verdict = world.decide(world.live())
    if restriction.startswith("permit_"):
        assert answer(verdict) == "554 5.7.1 <x@known.test>: Relay access denied"
    else:
        assert answer(verdict) == "451 4.3.5 Server configuration error"
    assert world.decide(world.replayed()) == verdict


def test_a_stranger_may_be_discarded() -> None:
    table = "check_sender_mx_access inline:{192.0.2.66=DISCARD}"
    world = World({"smtpd_sender_restrictions": table})
    assert answer(world.decide(world.live())) == ""


@pytest.mark.parametrize("stage", ["permit_naked_ip_address", "check_relay_domains"])
def test_what_was_removed_is_refused(stage: str) -> None:
    world = World({RCPT: stage})
    assert answer(world.decide(world.live())) == "451 4.3.5 Server configuration error"


def test_earlier_stages_defer_what_a_later_one_permits() -> None:
    """Without smtpd_delay_reject the facts carry DEFER_IF_PERMIT from stage to stage."""
    world = World(
        {
            "smtpd_delay_reject": "no",
            CLIENT: "check_client_access inline:{203.0.113.9=DEFER_IF_PERMIT}",
            "smtpd_helo_restrictions": "check_helo_access inline:{late.test=DEFER_IF_PERMIT}",
            "smtpd_sender_restrictions": "inline:{late@known.test=DEFER_IF_PERMIT}",
            RCPT: "inline:{alice@example.test=OK}",
        }
    )
    facts, restrictions, lookups = world.facts, world.restrictions, world.live()

    async def session(address: str, helo: str, sender: str) -> str:
        facts.client, facts.helo_name = Client(address), helo
        facts.mail.sender = sender
        await restrictions.connect(facts, lookups)
        await restrictions.helo(facts, lookups)
        await restrictions.mail(facts, lookups)
        return answer(await restrictions.recipient(facts, lookups))

    async def sessions() -> list[str]:
        return [
            (await session(*who)).partition(": ")[2]
            for who in (
                ("203.0.113.9", "late.test", "late@known.test"),
                ("203.0.113.2", "late.test", "late@known.test"),
                ("203.0.113.2", "c.test", "late@known.test"),
                ("203.0.113.2", "c.test", "a@known.test"),
            )
        ]

    assert asyncio.run(sessions()) == [
        "Client host rejected: Service unavailable",
        "Helo command rejected: Service unavailable",
        "Sender address rejected: Service unavailable",
        "",
    ]


def test_a_session_replays_stage_by_stage() -> None:
    """A whole session, with its own record, and nothing but that for the second time."""
    settings = {
        "smtpd_delay_reject": "no",
        CLIENT: "check_client_access inline:{203.0.113=WARN hello}",
        "smtpd_helo_restrictions": "reject_unknown_helo_hostname",
        "smtpd_sender_restrictions": "reject_unknown_sender_domain, check_sender_mx_access fail:x",
        "smtpd_data_restrictions": "sleep 1, reject_rbl_client rbl.test",
        "smtpd_end_of_data_restrictions": "check_recipient_access inline:{alice@=HOLD}",
    }

    async def session(world: World, lookups: Lookups) -> list[Verdict]:
        stages = world.restrictions
        steps = (stages.connect, stages.helo, stages.mail, stages.recipient, stages.data)
        world.facts.deferrals.clear()
        return [await step(world.facts, lookups) for step in (*steps, stages.end_of_data)]

    world = World(settings)
    first = asyncio.run(session(world, world.live()))
    assert any(verdict.effects for verdict in first)
    assert asyncio.run(session(world, world.replayed())) == first


def test_warnings_are_in_the_verdict() -> None:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "test")
    world = World({RCPT: "permit_mx_backup, nonsense"}, recipient="x@relayed.test")
    verdict = world.decide(world.live())
    what = 'support for restriction "permit_mx_backup" will be removed from Postfix'
    assert verdict.warnings[0] == f'{what}; instead, specify "relay_domains"'
    assert logged == []


def test_what_decided_is_told() -> None:
    world = World({CLIENT: "check_client_access inline:{203.0.113=REJECT}"})
    verdict = world.decide(world.live())
    assert verdict.decided_by == "inline:{203.0.113=REJECT} 203.0.113"
    assert [effect.action for effect in verdict.effects] == ["reject"]


def test_actions_are_told_and_not_done() -> None:
    table = "inline:{ {alice@example.test=HOLD kept back} {example.test=REJECT} }"
    world = World({RCPT: table.replace("} {", "}, {")})
    verdict = world.decide(world.live())
    assert verdict.reply is None
    effects = [(effect.action, effect.text) for effect in verdict.effects]
    assert effects == [("hold", "<alice@example.test>: Recipient address kept back")]


@pytest.mark.parametrize("action", ["BCC", "REDIRECT"])
def test_addresses_that_no_program_takes_are_no_fault_of_the_client(action: str) -> None:
    table = f"static:{{{action} {'a' * 3000}@example.test}}"
    world = World({RCPT: f"check_recipient_access {table}"})
    verdict = world.decide(world.live())
    assert verdict.reply is None
    (warning,) = verdict.effects
    assert warning.action == "warning"
    assert warning.text.endswith(' entry "alice@example.test" address too long')


@pytest.mark.parametrize(("stage", "key"), [(CLIENT, "x.known.test"), (RCPT, "a+b@known.test")])
def test_warnings_name_what_was_looked_up(stage: str, key: str) -> None:
    """Not the part of it that is in the table."""
    kind = "client" if stage == CLIENT else "sender"
    world = World({stage: f"check_{kind}_access inline:{{ {{known.test=PREPEND odd}} }}"})
    world.know("name", "x.known.test")
    world.know("sender", "a+b@known.test")
    (warning,) = world.decide(world.live()).effects
    assert warning.text.endswith(f' entry "{key}" requires header: text')


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("X-A: b", True),
        ("X/A:", True),
        ("From : a@b.test", True),
        ("X A: b", False),
        ("Xé: b", False),
        ("X\rA: b", False),
        (": b", False),
        ("X-A", False),
    ],
)
def test_what_can_be_prepended(text: str, usable: bool) -> None:
    world = World({RCPT: f"check_sender_access static:{{PREPEND {text}}}"})
    (effect,) = world.decide(world.live()).effects
    assert (effect.action == "prepend") is usable


@pytest.mark.parametrize("word", ["HOLD", "DISCARD", "FILTER x:", "BCC a@b", "PREPEND A: b"])
def test_etrn_has_no_message_to_act_upon(word: str) -> None:
    world = World({"smtpd_etrn_restrictions": f"check_etrn_access static:{{{word}}}"})
    verdict = asyncio.run(world.restrictions.etrn(world.facts, world.live()))
    (warning,) = verdict.effects
    name = word.partition(" ")[0]
    assert warning.text.endswith(f": action {name} is unavailable in smtpd_etrn_restrictions")


def test_relay_control_has_to_be_somewhere() -> None:
    with pytest.raises(Fatal):
        World({"smtpd_relay_restrictions": "permit", RCPT: "warn_if_reject, reject"})


def test_parents() -> None:
    assert [key for key, _ in domain_parents("a.b.c", dotted=False)] == ["a.b.c", "b.c", "c"]
    assert [key for key, _ in domain_parents("a.b.c", dotted=True)] == ["a.b.c", ".b.c", ".c"]
    assert [key for key, _ in address_parents("1.2.3.4")] == ["1.2.3.4", "1.2.3", "1.2", "1"]
    assert [key for key, _ in address_parents("2001:db8::1")] == ["2001:db8::1", "2001:db8", "2001"]


@pytest.mark.parametrize(
    ("pattern", "address", "want"),
    [
        ("127.0.0.2", "127.0.0.2", True),
        ("127.0.0.[2..4;9]", "127.0.0.9", True),
        ("127.0.0.[2..4;9]", "127.0.0.5", False),
    ],
)
def test_list_patterns(pattern: str, address: str, want: bool) -> None:
    assert matches_pattern(pattern, address) is want


@pytest.mark.parametrize("pattern", ["127.0.0.[4..2]", "127.0.0.256", "127.0.0.[]", "foo", "1.2.3"])
def test_list_patterns_that_are_none(pattern: str) -> None:
    assert not valid_pattern(pattern)
    with pytest.raises(ValueError):
        matches_pattern(pattern, "127.0.0.2")


def test_every_parameter_is_declared() -> None:
    Config("", []).load(RestrictionParams)
    assert fields(RestrictionParams)
