"""Submissions that end before cleanup has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from daemons.pickup.params import Prepared
from daemons.pickup.submit import Origin, Submitter, mended
from libmail.clients.cleanup import CleanupClient, Submission
from libmail.ipc.messages import CleanupFlag, Envelope, EnvelopeFlag, SubmitResult
from libmail.service.authorization import AuthorizedUsers
from libmail.service.pool import ServicePool
from tests.unit.daemons.pickup.test_maildrop import PARAMS

MILTER = ("inet:127.0.0.1:1",)


class Asked(Exception):
    """It came as far as cleanup."""


class FakeCleanup(CleanupClient):
    async def open(self, flags: int) -> Submission:
        raise Asked(flags)


def submitter(action: str, options: tuple[str, ...] = ()) -> Submitter:
    params = replace(
        PARAMS,
        milter_default_action=action,
        non_smtpd_milters=MILTER,
        receive_override_options=options,
    )
    users = AuthorizedUsers("p", "static:anyone", "submit mail")
    return Submitter(Prepared(params, users), FakeCleanup(ServicePool("public/cleanup")))


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def submit(one: Submitter) -> SubmitResult:
    return asyncio.run(one.submit(Origin(7), Envelope("a@b"), (), nothing()))


@pytest.mark.parametrize(
    ("action", "status", "reason"),
    [
        ("tempfail", 75, "4.7.1 Service unavailable - try again later"),
        ("shutdown", 75, "4.7.1 Service unavailable - try again later"),
        ("nonsense", 75, "4.3.5 Server configuration problem - try again later"),
        ("reject", 65, "5.5.0 Service unavailable"),
    ],
)
def test_milters_down(action: str, status: int, reason: str) -> None:
    result = submit(submitter(action))
    assert (result.exit_status, result.reason) == (status, reason)


@pytest.mark.parametrize(("said", "taken"), [("+=", "+="), ("a=", ""), ("+=+", ""), ("", "")])
def test_users_may_only_name_usable_delimiters(said: str, taken: str) -> None:
    envelope = submitter("accept").user_envelope(Envelope("a@b", verp_delims=said), 7)
    assert envelope.verp_delims == taken


@pytest.mark.parametrize(
    ("flags", "context"), [(0, "local"), (EnvelopeFlag.RELAYED, "invalid.test")]
)
def test_context_of_header_rewriting(flags: int, context: str) -> None:
    """sendmail -G."""
    envelope = submitter("accept").user_envelope(Envelope("a@b", flags=flags), 7)
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


@pytest.mark.parametrize(
    ("action", "options"), [("accept", ()), ("quarantine", ()), ("reject", ("no_milters",))]
)
def test_passes(action: str, options: tuple[str, ...]) -> None:
    one = submitter(action, options)
    assert bool(one.flags & CleanupFlag.HOLD) == (action == "quarantine")
    with pytest.raises(Asked):
        submit(one)
