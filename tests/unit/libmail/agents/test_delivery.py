"""What all delivery agents share: log, records, marks, in their order."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from daemons import discard, error
from libmail.agents.delivery import (
    Bounced,
    Deferred,
    Delivery,
    DeliveryParams,
    DeliveryServices,
    Sent,
    _deliver,
)
from libmail.agents.status_filter import StatusFilter
from libmail.ipc.messages import (
    BounceAppend,
    BounceReply,
    DeliverReply,
    DeliverRequest,
    DsnNotify,
    Envelope,
    Nexthop,
    Recipient,
    Target,
    TraceFlag,
    Transport,
    VerifyReply,
    VerifyUpdate,
)
from libmail.log import LOG
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter, open_queue_file
from libmail.service.pool import ServiceUnavailable
from libmail.tables.maps import Maps

QUEUE = QueueDirectory(frozenset())


class World:
    """A message with two recipients, and services that remember what they were told."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        soft: bool = False,
        status_filter: StatusFilter | None = None,
    ) -> None:
        writer = QueueFileWriter(QUEUE, "active", long_ids=False)
        writer.write_header(b"Subject: x\r\n")
        todo = [Recipient("a@b", "a@b"), Recipient("c@d", "c@d", "", int(DsnNotify.SUCCESS))]
        writer.complete(Envelope("me@x", arrival=1.0), todo, ContentFlag(0))
        writer.close()
        self.queue_id = writer.queue_id
        self.told: list[tuple[str, str, str]] = []
        self.targets: list[Target] = []
        self.down: set[str] = set()
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/error")
        params = DeliveryParams(soft, "bounce", "defer", "trace", 5.0, "verify")
        self.services = DeliveryServices.of(params, status_filter)
        for name in ("bounce", "defer", "trace"):
            monkeypatch.setattr(getattr(self.services, name), "call", self.service(name))
        self.verified: list[VerifyUpdate] = []
        monkeypatch.setattr(self.services.verify, "call", self.verify)

    async def verify(self, request: VerifyUpdate, reply: type[VerifyReply]) -> VerifyReply:
        if "verify" in self.down:
            raise ServiceUnavailable("verify is down")
        self.verified.append(request)
        return VerifyReply(0, "")

    def service(self, name: str) -> object:
        async def call(request: BounceAppend, reply: type[BounceReply]) -> BounceReply:
            if name in self.down:
                raise ServiceUnavailable(f"{name} is down")
            self.targets += request.targets
            self.told += [(name, t.address, f"{t.action} {t.status}") for t in request.targets]
            return BounceReply(0, "")

        return call

    def request(self, nexthop: str = "", flags: int = 0) -> DeliverRequest:
        with QueueFile(f"active/{self.queue_id}") as file:
            recipients = tuple(file.recipients())
        return DeliverRequest(
            flags, self.queue_id, Transport("t"), Nexthop(nexthop), "me@x", 0, "",
            12, 2.0, recipients,
        )  # fmt: skip

    def left(self) -> list[str]:
        with QueueFile(f"active/{self.queue_id}") as file:
            return [recipient.address for recipient in file.recipients()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "active").mkdir()
    return World(monkeypatch)


def run(world: World, agent: object, request: DeliverRequest) -> DeliverReply:
    fd = open_queue_file(f"active/{world.queue_id}", writable=True)
    return asyncio.run(_deliver(agent, world.services, request, fd))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "nexthop", "status"),
    [(error._return, "5.1.2 closed", 2), (error._defer, "4.3.0 later", 1)],
    ids=["bounce", "defer"],
)
@pytest.mark.parametrize("down", [False, True])
def test_a_probe_is_told_to_verify_alone(
    world: World, agent: object, nexthop: str, status: int, down: bool
) -> None:
    if down:
        world.down = {"verify"}
    reply = run(world, agent, world.request(nexthop, TraceFlag.MTA_VERIFY))
    assert reply == DeliverReply(False, "", "")
    assert world.left() == []
    assert world.told == []
    text = nexthop[6:]
    wanted = [VerifyUpdate(address, status, text) for address in ("a@b", "c@d")]
    assert world.verified == ([] if down else wanted)
    lines = [line for line in world.logged if "status=undeliverable" in line]
    assert len(lines) == 2


def test_error_returns(world: World) -> None:
    reply = run(world, error._return, world.request("5.1.2 closed"))
    assert reply == DeliverReply(False, "", "")
    assert world.left() == []
    assert world.told == [("bounce", "a@b", "failed 5.1.2"), ("bounce", "c@d", "failed 5.1.2")]
    assert "to=<a@b>, relay=none, " in world.logged[0]
    assert world.logged[0].endswith("dsn=5.1.2, status=bounced (closed)")


@pytest.mark.parametrize(
    ("nexthop", "dsn", "reason"),
    [("4.4.9 not now", "4.4.9", "not now"), ("later", "4.0.0", "later")],
)
def test_error_defers(world: World, nexthop: str, dsn: str, reason: str) -> None:
    reply = run(world, error._defer, world.request(nexthop))
    assert reply.deferred
    assert world.left() == ["a@b", "c@d"]
    assert world.told[0] == ("defer", "a@b", f"delayed {dsn}")
    assert world.logged[0].endswith(f"dsn={dsn}, status=deferred ({reason})")


def test_discard(world: World) -> None:
    reply = run(world, discard._discard, world.request("silently"))
    assert not reply.deferred
    assert world.left() == []
    assert world.told == [("trace", "c@d", "delivered 2.0.0")]
    assert world.logged[0].endswith("dsn=2.0.0, status=sent (silently)")


@pytest.mark.parametrize(
    ("notify", "told"), [(0, True), (DsnNotify.DELAY, True), (DsnNotify.FAILURE, False)]
)
def test_success_after_a_delay_is_told_who_hears_of_delays(
    world: World, notify: int, told: bool
) -> None:
    request = world.request("silently", TraceFlag.DELAY_CLEARED)
    first, second = request.recipients
    changed = request._replace(recipients=(first._replace(notify=int(notify)), second))
    run(world, discard._discard, changed)
    assert [address for _, address, _ in world.told] == ["a@b"] * told + ["c@d"]


def test_verify_only_is_recorded_and_nothing_else(world: World) -> None:
    run(world, error._return, world.request("5.1.2 closed", TraceFlag.USER_VERIFY))
    assert {name for name, _, _ in world.told} == {"trace"}
    assert world.told[0][2] == "undeliverable 5.1.2"
    assert world.left() == []


def test_what_cannot_be_recorded_is_tried_again(world: World) -> None:
    world.down.add("bounce")
    assert run(world, error._return, world.request("5.1.2 closed")).deferred
    assert world.left() == ["a@b", "c@d"]
    assert world.told[0] == ("defer", "a@b", "delayed 4.3.0")


def test_soft_bounce(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, soft=True)
    assert run(world, error._return, world.request("5.1.2 closed")).deferred
    assert world.told[0] == ("defer", "a@b", "delayed 4.1.2")


@pytest.mark.parametrize(
    ("rule", "soft", "told", "line"),
    [
        ("5.1.2 closed=4.1.9 soon", False, "delayed 4.1.9", "dsn=4.1.9, status=deferred (soon)"),
        ("5.1.2 closed=5.7.0", False, "failed 5.7.0", "dsn=5.7.0, status=bounced (closed)"),
        ("5.1.2 closed=2.0.0 ok", False, "failed 5.1.2", "dsn=5.1.2, status=bounced (closed)"),
        ("5.1.2 closed=5.0.1 a", True, "delayed 4.0.1", "dsn=4.0.1, status=SOFTBOUNCE (a)"),
        ("other=5.0.1 a", False, "failed 5.1.2", "dsn=5.1.2, status=bounced (closed)"),
    ],
)
def test_status_filter(
    world: World, monkeypatch: pytest.MonkeyPatch, rule: str, soft: bool, told: str, line: str
) -> None:
    maps = Maps("error_delivery_status_filter", (f"inline:{{{{{rule}}}}}",))
    world = World(monkeypatch, soft=soft, status_filter=StatusFilter(maps))
    run(world, error._return, world.request("5.1.2 closed"))
    assert [one for _, address, one in world.told if address == "a@b"] == [told]
    assert world.logged[-1].endswith(line)


def test_success_stays_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = Maps("discard_delivery_status_filter", ("static:{5.0.0 no}",))
    world = World(monkeypatch, status_filter=StatusFilter(maps))
    run(world, discard._discard, world.request("silently"))
    assert world.logged[0].endswith("discard_delivery_status_filter: bad status code: 5.0.0 no")
    assert world.logged[1].endswith("dsn=2.0.0, status=sent (silently)")


def test_a_filter_that_fails_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = Maps("discard_delivery_status_filter", ("fail:broken",))
    world = World(monkeypatch, status_filter=StatusFilter(maps))
    run(world, discard._discard, world.request("silently"))
    assert world.left() == []
    assert world.logged[-1].endswith("dsn=2.0.0, status=sent (silently)")


def test_what_an_agent_leaves_is_deferred(world: World) -> None:
    async def agent(delivery: Delivery) -> None:
        sent = Sent(dsn="2.0.0", reason="ok", relay="r")
        await delivery.finish(delivery.request.recipients[0], sent)
        raise OSError(28, "No space left on device")

    assert run(world, agent, world.request()).deferred
    assert world.left() == ["c@d"]
    assert world.logged[-1].endswith("status=deferred (delivery failed: No space left on device)")


def test_destination_failure_is_told(world: World) -> None:
    async def agent(delivery: Delivery) -> None:
        delivery.fail_destination("4.4.1", "refused")
        outcome = Deferred(dsn="4.4.1", reason="refused", relay="none")
        await delivery.finish_all(delivery.unfinished, outcome)

    assert run(world, agent, world.request()) == DeliverReply(True, "4.4.1", "refused")


def test_words_of_others_can_be_recorded_whatever_they_are(world: World) -> None:
    async def agent(delivery: Delivery) -> None:
        delivery.fail_destination("4.4.1", "a\0b")
        text = "said: la\0ter\r\n"
        outcome = Deferred("4.4.1", text, relay="r\0", mta="m\0", diag_text="d\x1b\0" * 9000)
        await delivery.finish_all(delivery.unfinished, outcome)

    assert run(world, agent, world.request()) == DeliverReply(True, "4.4.1", "a")
    (first, _) = world.targets
    assert (first.reason, first.relay, first.mta) == ("said: la", "r", "m")
    assert first.diag_text == "d?"


def test_a_recipient_that_cannot_be_marked_is_tried_again(world: World) -> None:
    async def agent(delivery: Delivery) -> None:
        await delivery.finish_all(delivery.unfinished, Sent(dsn="2.0.0", reason="ok", relay="r"))

    request = world.request()
    odd = tuple(one._replace(offset=10**6 + one.offset) for one in request.recipients)
    assert run(world, agent, request._replace(recipients=odd)).deferred
    assert "update queue file: no recipient record at offset" in world.logged[-1]


def test_a_damaged_file_is_tried_again(world: World) -> None:
    request = world.request()
    os.truncate(f"active/{world.queue_id}", 10)
    assert run(world, error._return, request) == DeliverReply(True, "", "")
    assert world.logged == [f"warning: {world.queue_id}: read queue file: file too short"]


def test_outcomes_are_values() -> None:
    assert Bounced(dsn="5.0.0", reason="r", relay="none") == Bounced(
        dsn="5.0.0", reason="r", relay="none"
    )
