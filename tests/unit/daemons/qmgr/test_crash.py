"""The queue manager is killed behind each step of docs/queue.md; the next one finishes the work."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from libmail.ipc.messages import DeliverReply, DeliverRequest, QueueId
from libmail.queue.file import QueueFile
from tests.unit.daemons.qmgr.fakes import (
    DIRECTORY,
    Bed,
    RecordingAgent,
    files,
    make_directories,
    put,
)


@pytest.fixture(autouse=True)
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directories(tmp_path)
    monkeypatch.chdir(tmp_path)


def bounce_log(queue_id: QueueId) -> None:
    Path(DIRECTORY.path("bounce", queue_id)).touch()


class Victim:
    """A first life that ends at a step: `stop_at` counts the durable steps of the queue manager."""

    STEPS = ("move", "remove", "defer", "mark_warned")

    def __init__(self, bed: Bed, stop_at: int) -> None:
        self.left = stop_at
        self.dead = False
        self.killed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for name in self.STEPS:
            self._wrap(bed, name)

    def _wrap(self, bed: Bed, name: str) -> None:
        real = getattr(bed.store, name)

        def step(*args: Any) -> object:
            if self.dead:
                return [False for _ in args[0]] if name == "remove" else False
            result = real(*args)
            self.left -= 1
            if self.left <= 0:
                self.dead = True
                self._loop.call_soon_threadsafe(self.killed.set)  # files are removed in a thread
            return result

        setattr(bed.store, name, step)


async def first_life(queue_id: QueueId, agent: RecordingAgent, stop_at: int) -> bool:
    """Whether it was killed before it was through."""
    bed = Bed()
    victim = Victim(bed, stop_at)
    await bed.serve(smtp=agent)
    try:
        bed.manager.begin()
        bed.manager.intake.new_mail(queue_id)
        idle = asyncio.create_task(bed.idle())
        killed = asyncio.create_task(victim.killed.wait())
        await asyncio.wait({idle, killed}, return_when=asyncio.FIRST_COMPLETED)
        for task in (idle, killed):
            task.cancel()
        return victim.dead
    finally:
        await bed.close()


async def second_life(agent: RecordingAgent) -> Bed:
    bed = Bed()
    await bed.serve(smtp=agent)
    try:
        bed.manager.begin()
        bed.manager.trigger("A")
        bed.manager.trigger("D")
        await bed.idle()
    finally:
        await bed.close()
    return bed


@pytest.mark.parametrize("stop_at", range(1, 5))
@pytest.mark.parametrize("deferred_first", [False, True])
def test_killed_behind_a_step(stop_at: int, deferred_first: bool) -> None:
    async def test() -> None:
        queue_id = put("incoming", ["a@smtp.test", "b@smtp.test"], arrival=time.time())
        agent = RecordingAgent()
        if deferred_first:
            agent.fate["b@smtp.test"] = DeliverReply(True, "", "")
        await first_life(queue_id, agent, stop_at)
        agent.fate.clear()
        await second_life(agent)
        assert sorted(agent.delivered) == ["a@smtp.test", "b@smtp.test"]
        assert not files("incoming") | files("active") | files("deferred")

    asyncio.run(test())


def test_report_is_sent_before_the_file_goes() -> None:
    """At the moment of the report the message is still there, all recipients done."""

    async def test() -> None:
        queue_id = put("incoming", ["a@smtp.test"])
        bounce_log(queue_id)
        bed, agent = Bed(), RecordingAgent()
        states: list[tuple[set[str], int]] = []
        note = bed.reports._note

        def look(name: str, request: object) -> None:
            with QueueFile(DIRECTORY.path("active", queue_id)) as file:
                states.append((files("active"), len(list(file.recipients()))))
            note(name, request)

        bed.reports._note = look  # type: ignore[method-assign]
        await bed.serve(smtp=agent)
        try:
            bed.manager.begin()
            bed.manager.intake.new_mail(queue_id)
            await bed.idle()
        finally:
            await bed.close()
        assert states == [({queue_id}, 0)]
        assert not files("active")

    asyncio.run(test())


def test_answer_that_was_not_heard_does_not_deliver_twice() -> None:
    """The agent marked the recipient, the queue manager died before it read the reply."""

    async def test() -> None:
        queue_id = put("incoming", ["a@smtp.test"])
        done = asyncio.Event()
        agent = RecordingAgent()

        async def slow(request: DeliverRequest) -> DeliverReply | None:
            await agent(request)
            done.set()
            await asyncio.sleep(0.2)
            return DeliverReply(False, "", "")

        bed = Bed()
        await bed.serve(smtp=slow)
        bed.manager.begin()
        bed.manager.intake.new_mail(queue_id)
        await done.wait()
        await bed.close()
        assert files("active") == {queue_id}
        await second_life(agent)
        assert agent.delivered == ["a@smtp.test"]
        assert not files("active") | files("incoming") | files("deferred")

    asyncio.run(test())
