"""reject_unverified_*: what is asked, how long for, and how the codes come about."""

import asyncio
from collections.abc import Sequence

import pytest

from libmail.config import Config
from libmail.config.main_cf import Entry
from libmail.ipc.messages import VerifyReply
from libmail.lookup.context import LiveLookups
from libmail.lookup.facts import Client, Facts, Verdict
from libmail.lookup.lists import compile_lists
from libmail.lookup.params import RestrictionParams
from libmail.lookup.record import Asked, RecordingLookups, ReplayedLookups
from libmail.lookup.restrictions import Restrictions
from libmail.lookup.verification import VerifyQuestion, probe_sender, probe_senders
from libmail.service.pool import ServiceUnavailable

OK = VerifyReply(0, "250 Ok")
DEFER = VerifyReply(1, "ask later")
BOUNCE = VerifyReply(2, "no such user")
TODO = VerifyReply(3, "Address verification in progress")
WHO = "<b@y.test>: Recipient address rejected"
SENDER = "<a@x.test>: Sender address rejected"


def decided(
    answers: Sequence[VerifyReply], word: str = "reject_unverified_recipient", **settings: str
) -> tuple[Verdict, list[float], list[str]]:
    """(verdict, time for each question, addresses) of a restriction; no answers: verify is down."""
    values = {
        "smtpd_relay_restrictions": "",
        "smtpd_recipient_restrictions": f"{word}, permit, reject",
        "smtpd_reject_unlisted_recipient": "no",
        "address_verify_poll_delay": "1s",
        **settings,
    }
    config = Config("", [Entry(name, value, "", 0) for name, value in values.items()])
    params = config.load(RestrictionParams)
    restrictions = Restrictions(params, compile_lists(params, {}))
    asked: list[str] = []
    waits: list[float] = []
    waiting = list(answers)

    async def ask(question: VerifyQuestion) -> VerifyReply:
        asked.append(question.key)
        waits.append(question.wait)
        if not waiting:
            raise ServiceUnavailable("private/verify: down")
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    record: list[Asked] = []
    facts = Facts(Client("192.0.2.7"), where="RCPT")
    facts.mail.sender, facts.mail.recipient = "a@x.test", "b@y.test"
    live = RecordingLookups(LiveLookups({VerifyQuestion: ask}), record)
    verdict = asyncio.run(restrictions.recipient(facts, live))
    assert asyncio.run(restrictions.recipient(facts, ReplayedLookups(record))) == verdict
    return verdict, waits, asked


@pytest.mark.parametrize(
    ("answers", "settings", "wanted"),
    [
        ([OK], {}, ""),
        ([DEFER], {}, f"450 4.1.1 {WHO}: unverified address: ask later"),
        ([BOUNCE], {}, f"450 4.1.1 {WHO}: unverified address: no such user"),
        (
            [BOUNCE],
            {"unverified_recipient_reject_code": "550"},
            f"550 5.1.1 {WHO}: undeliverable address: no such user",
        ),
        (
            [BOUNCE],
            {"unverified_recipient_reject_code": "553", "unverified_recipient_reject_reason": "no"},
            f"553 5.1.1 {WHO}: undeliverable address: no",
        ),
        ([BOUNCE], {"unverified_recipient_reject_code": "250"}, ""),
        ([DEFER], {"unverified_recipient_defer_code": "250"}, ""),
        (
            [DEFER],
            {"unverified_recipient_defer_code": "451"},
            f"451 4.1.1 {WHO}: unverified address: ask later",
        ),
        (
            [DEFER],
            {"unverified_recipient_defer_code": "550"},
            f"550 5.1.1 {WHO}: undeliverable address: ask later",
        ),
        ([TODO], {}, f"450 4.1.1 {WHO}: unverified address: {TODO.text}"),
        ([], {}, f"450 4.1.1 {WHO}: address verification problem"),
    ],
)
@pytest.mark.parametrize("action", ["defer", "defer_if_permit"])
def test_recipients(
    answers: list[VerifyReply], settings: dict[str, str], wanted: str, action: str
) -> None:
    verdict = decided(answers, unverified_recipient_tempfail_action=action, **settings)[0]
    assert ("" if verdict.reply is None else verdict.reply.line) == wanted


def test_senders() -> None:
    verdict, _, asked = decided([BOUNCE], "reject_unverified_sender")
    assert asked == ["a@x.test"]
    assert verdict.reply is not None
    assert verdict.reply.line == f"450 4.1.7 {SENDER}: unverified address: no such user"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_verify_is_given_the_time_of_all_polls(count: int) -> None:
    _, waits, asked = decided(
        [TODO], address_verify_poll_count=str(count), address_verify_poll_delay="7s"
    )
    assert waits == [7.0 * (count - 1)]
    assert asked == ["b@y.test"]


def test_a_permanent_refusal_comes_before_a_deferral() -> None:
    lists = "reject_unverified_recipient, reject"
    verdict = decided([DEFER], smtpd_recipient_restrictions=lists)[0]
    assert verdict.reply is not None
    assert verdict.reply.code == 554


@pytest.mark.parametrize(
    ("base", "ttl", "now", "wanted"),
    [
        ("double-bounce", 0, 1796047304, "double-bounce"),
        ("double-bounce", 600, 1796047304, "double-bounce37GWP"),
        ("probe@example.test", 600, 1796047304, "probe37GWP@example.test"),
        ("probe@example.test", 2, 1, "probe0@example.test"),
        ("", 600, 1796047304, ""),
        ("<>", 0, 1796047304, ""),
    ],
)
def test_senders_of_probes(base: str, ttl: float, now: float, wanted: str) -> None:
    assert probe_sender(base, ttl, now) == wanted
    if wanted:
        for step in (-ttl, 0, ttl):
            assert wanted in probe_senders(base, ttl, now + step)
