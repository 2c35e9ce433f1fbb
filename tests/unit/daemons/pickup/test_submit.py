"""Submissions: who may make them, how large they may be, and what is refused before cleanup."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemons.pickup.params import Prepared
from daemons.pickup.submit import Origin, Submitter, mended
from libmail.clients.cleanup import CleanupClient, Submission
from libmail.ipc.codec import Chunk, WireError
from libmail.ipc.messages import (
    CleanupFlag,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Recipient,
    Recipients,
    SubmitOpen,
    SubmitOpened,
    SubmitResult,
)
from libmail.lookup.authorization import AuthorizedUsers, LocalSenders
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool
from libmail.tables.maps import Maps
from tests.unit.daemons.pickup.test_maildrop import PARAMS
from tests.unit.daemons.receivers import CHUNKS, TRIGGERS, FakeConnection, of_type


class Asked(Exception):
    """It came as far as cleanup."""


class FakeCleanup(CleanupClient):
    async def open(self, flags: int) -> Submission:
        raise Asked(flags)


ANY_SENDER = LocalSenders(None, "<>", "")


def submitter(options: tuple[str, ...] = (), senders: LocalSenders = ANY_SENDER) -> Submitter:
    params = replace(PARAMS, receive_override_options=options)
    users = AuthorizedUsers("p", "static:anyone", "submit mail")
    return Submitter(Prepared(params, users, senders), FakeCleanup(ServicePool("public/cleanup")))


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def submit(one: Submitter) -> SubmitResult:
    return asyncio.run(one.submit(Origin(7), Envelope("a@b"), (), nothing()))


@pytest.mark.parametrize(("said", "taken"), [("+=", "+="), ("a=", ""), ("+=+", ""), ("", "")])
def test_users_may_only_name_usable_delimiters(said: str, taken: str) -> None:
    envelope = submitter().user_envelope(Envelope("a@b", verp_delims=said), 7)
    assert envelope.verp_delims == taken


@pytest.mark.parametrize(
    ("flags", "context"), [(0, "local"), (EnvelopeFlag.RELAYED, "invalid.test")]
)
def test_context_of_header_rewriting(flags: int, context: str) -> None:
    """sendmail -G."""
    envelope = submitter().user_envelope(Envelope("a@b", flags=flags), 7)
    assert (envelope.rewrite_context, envelope.flags) == (context, EnvelopeFlag.LOCAL)


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([b"", b" x", b" y"], b"\r\n x y"),
        ([b"\tx"], b"\r\n\tx"),
        ([b"a: b", b" c"], b"a: b c"),
        ([], b""),
    ],
)
def test_white_space_at_the_start(pieces: list[bytes], wanted: bytes) -> None:
    async def content() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read() -> list[bytes]:
        return [piece async for piece in mended(content())]

    assert b"".join(asyncio.run(read())) == wanted


@pytest.mark.parametrize(("options", "flag"), [((), True), (("no_milters",), False)])
def test_who_is_to_see_it(options: tuple[str, ...], flag: bool) -> None:
    assert bool(submitter(options).flags & CleanupFlag.MILTER) is flag


ALICE = 2001
OPEN = SubmitOpen("a@b", False, "", 0, "", "", 0, 0)


def serve(one: Submitter, *units: object) -> list[object]:
    """What a user is answered."""
    connection = FakeConnection(units, uid=ALICE)

    async def run() -> None:
        message = await connection.receive_as(SubmitOpen)
        try:
            await one.serve(cast(Connection, connection), message)
        except (ConnectionLost, Asked):
            pass

    asyncio.run(run())
    return connection.sent


def answer(one: Submitter, *units: object) -> SubmitResult:
    last = serve(one, *units)[-1]
    assert isinstance(last, SubmitResult)
    return last


def test_who_may_not_is_told_before_anything_is_taken() -> None:
    users = AuthorizedUsers("p", "nobody-at-all", "submit mail")
    one = Submitter(Prepared(PARAMS, users, ANY_SENDER), FakeCleanup(ServicePool("public/cleanup")))
    (refusal,) = serve(one, OPEN)
    assert isinstance(refusal, SubmitResult)
    assert refusal.exit_status == 77
    assert "is not allowed to submit mail" in refusal.reason


SENDERS = "inline:{{u1=u1@a.test me, @b.test}, {u2=* }, {uid:3 = none}}"
MAY_SEND = [
    (1, "u1@a.test", True),
    (1, "U1@A.test", True),
    (1, "u1+x@a.test", True),
    (1, "me+x", True),
    (1, "anybody@b.test", True),
    (1, "u1@c.test", False),
    (1, "x@sub.b.test", False),
    (1, "u1", False),
    (1, "", False),
    (2, "x@y.test", True),
    (2, "", True),
    (3, "", True),
    (3, "none", True),
    (3, "x@y.test", False),
    (4, "x@y.test", False),
]


@pytest.mark.parametrize(("uid", "sender", "may"), MAY_SEND)
def test_local_senders(uid: int, sender: str, may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def account(number: int) -> SimpleNamespace:
        if number == 3:
            raise KeyError
        return SimpleNamespace(pw_name=f"u{number}")

    monkeypatch.setattr("pwd.getpwuid", account)
    senders = LocalSenders(Maps("local_login_sender_maps", SENDERS), "none", "+")
    refusal = asyncio.run(senders.refusal(uid, sender))
    assert refusal == ("" if may else f"{sender}({uid}): not authorized to use sender='{sender}'")


def test_a_sender_of_others_is_told_before_anything_is_taken() -> None:
    one = submitter(senders=LocalSenders(Maps("t", "static:b@c"), "<>", ""))
    (refusal,) = serve(one, OPEN)
    assert isinstance(refusal, SubmitResult)
    assert (refusal.exit_status, refusal.reason) == (
        77,
        "a@b(2001): not authorized to use sender='a@b'",
    )
    broken = submitter(senders=LocalSenders(Maps("t", "fail:x"), "<>", ""))
    assert answer(broken, OPEN).exit_status == 75


def test_what_is_too_large_is_told_before_anything_is_taken() -> None:
    (refusal,) = serve(submitter(), OPEN._replace(size=PARAMS.message_size_limit + 1))
    assert refusal == SubmitResult(77, "a@b(2001): message file too big", QueueId(""))


def test_a_table_that_does_not_answer_refuses_nothing_for_good() -> None:
    users = AuthorizedUsers("p", "fail:broken", "submit mail")
    one = Submitter(Prepared(PARAMS, users, ANY_SENDER), FakeCleanup(ServicePool("public/cleanup")))
    assert answer(one, OPEN).exit_status == 75


def test_recipients_are_bounded_in_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemons.pickup.submit._MAX_HELD", 3000)
    one = submitter(("no_milters",))
    few = Recipients((Recipient("x" * 1000),))
    assert answer(one, OPEN, few, few, few).exit_status == 65
    assert serve(one, OPEN, few, Chunk(b"")) == [SubmitOpened()]  # it came as far as cleanup
    assert not one._held


def test_a_user_has_so_much_in_all_submissions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemons.pickup.submit._MAX_HELD", 3000)
    one = submitter(("no_milters",))
    one._held[ALICE] = 2500
    assert answer(one, OPEN, Recipients((Recipient("x" * 1000),))).exit_status == 75
    assert one._held == {ALICE: 2500}


@pytest.mark.parametrize(
    ("opened", "recipient"),
    [
        (OPEN, Recipient("x" * 40_000 + "@b")),
        (OPEN, Recipient("a\nb@c")),
        (OPEN, Recipient("a@b", "x" * 3000)),
        (OPEN, Recipient("a@b", "a@b", "x" * 9000)),
        (OPEN, Recipient("a@b", "a@b", "", 10**19)),
        (OPEN._replace(sender="x" * 3000), Recipient("a@b")),
        (OPEN._replace(full_name="x" * 3000), Recipient("a@b")),
        (OPEN._replace(dsn_envid="a\nb"), Recipient("a@b")),
    ],
)
def test_what_nobody_takes(opened: SubmitOpen, recipient: Recipient) -> None:
    one = submitter(("no_milters",))
    assert answer(one, opened, Recipients((recipient,)), Chunk(b"")).exit_status == 65


@settings(max_examples=50, deadline=None)
@given(
    of_type(SubmitOpen),
    st.lists(of_type(Recipients), max_size=3),
    st.lists(CHUNKS | of_type(SubmitOpen) | TRIGGERS, max_size=3),
)
def test_whatever_a_user_says(
    opened: SubmitOpen, recipients: list[Recipients], units: list[object]
) -> None:
    one = submitter(("no_milters",))
    connection = FakeConnection([*recipients, *units], uid=ALICE)

    async def run() -> None:
        try:
            await one.serve(cast(Connection, connection), opened)
        except (ConnectionLost, WireError, Asked):
            pass

    asyncio.run(run())
    assert not one._held
    assert not one._submissions
