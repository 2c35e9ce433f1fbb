"""postfix oauth2: how often a server is asked whether somebody has agreed."""

from __future__ import annotations

import asyncio

import pytest

from commands.postfix.oauth2 import until_agreed
from libmail.oauth.answers import Device, Tokens, Trouble, Why

DEVICE = Device("code", "ABCD", "https://x.test", 600.0, 5.0)


def waits(*answers: Tokens | Trouble, device: Device = DEVICE) -> tuple[list[float], Tokens | str]:
    """The pauses before each request, and what came of it."""
    slept, left = list[float](), list(answers)

    async def ask(device: Device) -> Tokens:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Trouble):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    try:
        return slept, asyncio.run(
            until_agreed(device, ask, lambda: sum(slept), sleep, lambda text: None)
        )
    except Trouble as trouble:
        return slept, str(trouble)


PENDING = Trouble(Why.PENDING, "authorization_pending")
TOKENS = Tokens("a", 60.0, "r")


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        ([TOKENS], [5]),
        ([PENDING, PENDING, TOKENS], [5, 5, 5]),
        ([Trouble(Why.SLOWER, "slow_down"), PENDING, TOKENS], [5, 10, 10]),
        ([Trouble(Why.BROKEN, "down"), Trouble(Why.BROKEN, "down"), TOKENS], [5, 10, 20]),
        ([Trouble(Why.THROTTLED, "too many", 90.0), TOKENS], [5, 90]),
    ],
)
def test_pace(answers: list[Tokens | Trouble], pauses: list[float]) -> None:
    assert waits(*answers) == (pauses, TOKENS)


def test_refused() -> None:
    assert waits(PENDING, Trouble(Why.CONSENT, "access_denied")) == ([5, 5], "access_denied")


def test_expired() -> None:
    slept, why = waits(PENDING)
    assert (len(slept), why) == (120, "the code has expired")
