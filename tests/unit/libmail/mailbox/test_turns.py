"""Deliveries to one mailbox take turns; others do not wait."""

from __future__ import annotations

import asyncio

from libmail.mailbox.turns import Turns


def test_turns() -> None:
    async def run() -> list[str]:
        turns, done = Turns(), list[str]()

        async def deliver(mailbox: str, name: str) -> None:
            await turns.take(mailbox)
            done.append(name)

        await deliver("a", "a1")
        waiting = [asyncio.create_task(deliver("a", name)) for name in ("a2", "gone", "a3")]
        await asyncio.create_task(deliver("b", "b1"))
        waiting[1].cancel()
        await asyncio.wait([waiting[1]])
        for task in (waiting[0], waiting[2]):
            turns.leave("a")
            await task
        turns.leave("a")
        await deliver("a", "a4")
        return done

    assert asyncio.run(run()) == ["a1", "b1", "a2", "a3", "a4"]
