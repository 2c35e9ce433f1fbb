"""What depends on the client alone, decided live and again from what was recorded."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from libmail.ipc.messages import Nexthop, ResolveReply, Transport
from libmail.lookup.client_rules import (
    authorized,
    bare_newlines,
    completed_with,
    discarded_keywords,
    milters_for,
)
from libmail.lookup.context import LiveLookups, LookupFailure, Lookups, Question, RouteQuestion
from libmail.lookup.facts import Client
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.smtp.server import BareNewline
from libmail.tables.maps import Maps
from libmail.tables.match import AddressList

US = Client("192.0.2.1", name="us.test")
STRANGER = Client("203.0.113.1", name="them.test")
NOBODY = Client("203.0.113.2")
EHLO = "smtpd_discard_ehlo_keyword_address_maps"
EXCLUDED = "smtpd_forbid_bare_newline_exclusions"
VERP = "smtpd_authorized_verp_clients"
MILTERS = "smtpd_milter_maps"
HEADERS = "local_header_rewrite_clients"
TABLES = {
    EHLO: "inline:{ {203.0.113.1=ETRN, dsn}, {203.0.113.2=} } fail:x",
    MILTERS: "inline:{203.0.113.1=DISABLE}",
    HEADERS: "inline:{203.0.113.1=x} fail:x",
}
LISTS = {"mynetworks": "192.0.2.0/24", EXCLUDED: "192.0.2.0/24 [::1", VERP: "them.test fail:x"}


def live() -> LiveLookups:
    return LiveLookups(
        {},
        maps={title: Maps(title, text) for title, text in TABLES.items()},
        hosts={title: AddressList(title, text) for title, text in LISTS.items()},
    )


Decision = Callable[[Lookups], Awaitable[object]]
USUAL = frozenset(["VRFY"])
DECISIONS: dict[str, tuple[Decision, object, int]] = {
    "keywords": (
        lambda lookups: discarded_keywords(lookups, STRANGER.address, USUAL),
        frozenset(["ETRN", "DSN"]),
        0,
    ),
    "keywords, by a table that fails": (
        lambda lookups: discarded_keywords(lookups, "192.0.2.9", USUAL),
        USUAL,
        0,
    ),
    "VERP": (lambda lookups: authorized(lookups, VERP, STRANGER), True, 0),
    "VERP, by a list that fails": (lambda lookups: authorized(lookups, VERP, NOBODY), False, 1),
    "newlines": (lambda x: bare_newlines(x, STRANGER, "reject"), BareNewline.REJECT, 0),
    "newlines of ours": (lambda x: bare_newlines(x, US, "reject"), BareNewline.ALLOW, 0),
    "newlines, not wanted": (lambda x: bare_newlines(x, STRANGER, "no"), BareNewline.ALLOW, 0),
    "headers of ours": (
        lambda lookups: completed_with(lookups, US, ["permit_mynetworks"], "remote.test"),
        "local",
        0,
    ),
    "headers by a table": (
        lambda lookups: completed_with(lookups, STRANGER, ["check_address_map", "x:y"], ""),
        "local",
        0,
    ),
    "headers, by a table that fails": (
        lambda lookups: completed_with(lookups, NOBODY, ["x:y"], "remote.test"),
        "remote.test",
        1,
    ),
    "Milters": (lambda x: milters_for(x, STRANGER.address, ("inet:m",)), None, 0),
}


@pytest.mark.parametrize(("decision", "want", "warnings"), DECISIONS.values(), ids=DECISIONS)
def test_decisions_replay(decision: Decision, want: object, warnings: int) -> None:
    record: list[Asked] = []

    async def both() -> tuple[object, object]:
        first = await decision(RecordingLookups(live(), record))
        return first, await decision(ReplayedLookups(record))

    first, again = asyncio.run(both())
    assert first == again
    assert want is None or first.value == want  # type: ignore[attr-defined]
    assert len(first.warnings) == warnings  # type: ignore[attr-defined]


@dataclass(slots=True, eq=False)
class Weather(Question[str]):
    """A service that nothing knows of but this test."""


def test_services_are_added_without_change() -> None:
    async def weather(question: Weather) -> str:
        return f"rain in {question.where}"

    async def no_route(question: RouteQuestion) -> ResolveReply:
        return ResolveReply(0, Transport("smtp"), Nexthop("x"), question.key)

    record: list[Asked] = []
    lookups = RecordingLookups(LiveLookups({Weather: weather, RouteQuestion: no_route}), record)

    async def ask(asked: Lookups) -> tuple[str, str]:
        reply = await asked.ask(RouteQuestion("", "a@b"))
        return await asked.ask(Weather("Rome", "")), reply.recipient

    assert asyncio.run(ask(lookups)) == asyncio.run(ask(ReplayedLookups(record)))


def test_answers_keep_their_order() -> None:
    """The same question may have another answer the second time."""
    record = [Asked("now", "", "", 1.0), Asked("now", "", "", 2.0)]
    lookups = ReplayedLookups(record)
    assert [lookups.now(), lookups.now(), lookups.now()] == [1.0, 2.0, 2.0]


def test_what_was_not_asked_is_not_known() -> None:
    with pytest.raises(LookupFailure):
        asyncio.run(ReplayedLookups([]).find("x", "y"))
