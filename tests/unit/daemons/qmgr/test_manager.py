"""The queue manager with a queue in a directory and agents that are played."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemons.qmgr.backoff import Backoff
from libmail.ipc.messages import (
    CODEC,
    AddressStatus,
    AgentReady,
    DeliverFlag,
    DeliverReply,
    DeliverRequest,
    Envelope,
    EnvelopeFlag,
    QueueId,
    Target,
    TraceFlag,
    VerifyUpdate,
)
from libmail.queue.file import FORCED_EXPIRY, QueueFile
from libmail.queue.reasons import ReasonLog
from tests.unit.daemons.qmgr.fakes import (
    DIRECTORY,
    Bed,
    RecordingAgent,
    deferring,
    files,
    limits,
    make_directories,
    put,
)


@pytest.fixture(autouse=True)
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_directories(tmp_path)
    monkeypatch.chdir(tmp_path)


def run(bed_of: Callable[[], Bed], test: Callable[[Bed], Awaitable[None]]) -> None:
    async def main() -> None:
        bed = bed_of()
        try:
            async with asyncio.timeout(120):
                await test(bed)
        finally:
            await bed.close()

    asyncio.run(main())


def test_new_mail_is_delivered_and_removed() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        bed.manager.begin()
        queue_id = put("incoming", ["a@smtp.test", "b@smtp.test"])
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        assert agent.delivered == ["a@smtp.test", "b@smtp.test"]
        assert len(agent.requests) == 1
        assert not files("incoming") | files("active") | files("deferred")

    run(Bed, test)


def test_scan_of_incoming_skips_files_being_written() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        done = put("incoming", ["a@smtp.test"])
        partial = put("incoming", ["b@smtp.test"])
        os.chmod(DIRECTORY.path("incoming", partial), 0o600)
        bed.manager.begin()
        await bed.idle()
        assert [request.queue_id for request in agent.requests] == [done]
        assert files("incoming") == {partial}

    run(Bed, test)


def test_recipients_are_resolved_and_grouped() -> None:
    async def test(bed: Bed) -> None:
        agent, other = RecordingAgent(), RecordingAgent()
        await bed.serve(smtp=agent, lmtp=other)
        bed.manager.begin()
        bed.manager.intake.new_mail(
            put("incoming", ["c@smtp.a", "b@smtp.b", "a@smtp.a", "d@lmtp.x"])
        )
        bed.manager.intake.new_mail(put("incoming", ["e@slow.x"]))
        await bed.idle()
        groups = {
            (r.nexthop, tuple(x.address for x in r.recipients))
            for r in agent.requests + other.requests
        }
        assert groups == {  # recipients by domain and name
            ("smtp.a", ("a@smtp.a", "c@smtp.a")),
            ("smtp.b", ("b@smtp.b",)),
            ("lmtp.x", ("d@lmtp.x",)),
            ("slow.test", ("e@slow.x",)),
        }

    run(Bed, test)


def test_verp_makes_a_delivery_for_each_recipient() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        bed.manager.begin()
        envelope = Envelope("list@x", arrival=time.time(), verp_delims="+=")
        queue_id = put("incoming", ["a@smtp.test", "b@smtp.test"], envelope=envelope)
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        found = {r.sender: [x.address for x in r.recipients] for r in agent.requests}
        assert found == {
            "list+a=smtp.test@x": ["a@smtp.test"],
            "list+b=smtp.test@x": ["b@smtp.test"],
        }

    run(Bed, test)


def test_deferred_recipients_stay_with_a_next_try() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        agent.fate["b@smtp.test"] = DeliverReply(True, "", "")
        await bed.serve(smtp=agent)
        bed.manager.begin()
        arrival = time.time() - 1000
        queue_id = put("incoming", ["a@smtp.test", "b@smtp.test"], arrival=arrival)
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        path = DIRECTORY.path("deferred", queue_id)
        assert 900 < os.stat(path).st_mtime - time.time() <= 1001
        bed.manager.trigger("D")  # not yet
        await bed.idle()
        assert len(agent.requests) == 1
        agent.fate.clear()
        os.utime(path, (1, 1))
        bed.manager.trigger("D")
        await bed.idle()
        assert [x.address for x in agent.requests[1].recipients] == ["b@smtp.test"]
        assert not files("deferred") | files("active")

    run(Bed, test)


def expiring() -> Bed:
    return Bed(backoff=Backoff(300, 4000, 100, 100))


def test_expired_mail_is_returned_from_the_defer_log() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        agent.fate["a@smtp.test"] = DeliverReply(True, "", "")
        await bed.serve(smtp=agent)
        bed.manager.begin()
        queue_id = put("incoming", ["a@smtp.test"], arrival=time.time() - 200)
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        assert bed.reports.flushed == [("defer", "bounce", queue_id)]
        assert not files("active") | files("deferred")

    run(expiring, test)


def test_expired_mail_stays_when_the_report_fails() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        agent.fate["a@smtp.test"] = DeliverReply(True, "", "")
        bed.reports.status = 2
        await bed.serve(smtp=agent)
        bed.manager.begin()
        queue_id = put("incoming", ["a@smtp.test"], arrival=time.time() - 200)
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        assert files("deferred") == {queue_id}

    run(expiring, test)


def test_forced_expiry() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        retry = RecordingAgent()
        retry.fate["a@smtp.test"] = DeliverReply(True, "", "")
        await bed.serve(smtp=agent, retry=retry)
        queue_id = put("deferred", ["a@smtp.test"], mtime=1)
        os.chmod(DIRECTORY.path("deferred", queue_id), 0o700 | FORCED_EXPIRY)
        bed.manager.begin()
        bed.manager.trigger("D")
        await bed.idle()
        assert not agent.requests
        assert retry.requests[0].nexthop == "4.7.0 message is administratively expired"
        assert bed.reports.flushed == [("defer", "bounce", queue_id)]
        assert not files("active") | files("deferred")

    run(Bed, test)


def test_forced_expiry_tells_why_mail_was_deferred() -> None:
    """What the last try has recorded is not replaced; only the others are deferred once more."""

    async def test(bed: Bed) -> None:
        retry = RecordingAgent()
        retry.fate["b@smtp.test"] = DeliverReply(True, "", "")
        await bed.serve(retry=retry)
        queue_id = put("deferred", ["a@smtp.test", "b@smtp.test"], mtime=1)
        path = DIRECTORY.path("deferred", queue_id)
        os.chmod(path, 0o700 | FORCED_EXPIRY)
        with QueueFile(path) as file:
            first = next(file.recipients())
        reason = Target(first.address, "", "", 0, first.offset, "delayed", "4.4.1", "no route")
        os.close(ReasonLog(DIRECTORY, "defer").append(queue_id, [reason]))
        bed.manager.begin()
        bed.manager.trigger("D")
        await bed.idle()
        assert [one.address for one in retry.requests[0].recipients] == ["b@smtp.test"]
        assert bed.reports.flushed == [("defer", "bounce", queue_id)]
        assert not files("active") | files("deferred")

    run(Bed, test)


@pytest.mark.parametrize(("status", "kept"), [(0, False), (2, True)])
def test_bounce_report_comes_before_removal(status: int, kept: bool) -> None:
    async def test(bed: Bed) -> None:
        await bed.serve(smtp=RecordingAgent())
        bed.reports.status = status
        bed.manager.begin()
        queue_id = put("incoming", ["a@smtp.test"])
        Path(DIRECTORY.path("bounce", queue_id)).touch()
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        assert bed.reports.flushed == [("bounce", "bounce", queue_id)]
        assert files("deferred") == ({queue_id} if kept else set())

    run(Bed, test)


def test_delay_notice_is_sent_once() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        agent.fate["a@smtp.test"] = DeliverReply(True, "", "")
        await bed.serve(smtp=agent)
        bed.manager.begin()
        now = time.time()
        envelope = Envelope(sender="x@y", arrival=now - 50, warn_time=now - 10)
        queue_id = put("incoming", ["a@smtp.test"], envelope=envelope)
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        path = DIRECTORY.path("deferred", queue_id)
        with QueueFile(path) as file:
            assert file.envelope().warn_time < 0
        os.utime(path, (1, 1))
        bed.manager.trigger("D")
        await bed.until(lambda: len(agent.requests) == 2)
        await bed.idle()
        assert bed.reports.flushed == [("defer", "warn", queue_id)]

    run(Bed, test)


def test_corrupt_file_disturbs_nobody() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        bad, good = put("incoming", ["a@smtp.test"]), put("incoming", ["b@smtp.test"])
        path = DIRECTORY.path("incoming", bad)
        with open(path, "r+b") as file:
            file.write(b"garbage")
        bed.manager.begin()
        await bed.idle()
        assert files("corrupt") == {bad}
        assert [request.queue_id for request in agent.requests] == [good]

    run(Bed, test)


def test_a_file_of_another_message_is_found_by_a_scan() -> None:
    """As a power failure may leave it: whole, but not what its name says."""

    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        one, name = put("incoming", ["a@smtp.test"]), put("incoming", ["b@smtp.test"])
        os.rename(DIRECTORY.path("incoming", one), DIRECTORY.path("incoming", name))
        bed.manager.begin()
        await bed.idle()
        assert files("corrupt") == {name}
        assert agent.requests == []

    run(Bed, test)


def test_file_that_vanishes_is_no_error() -> None:
    async def test(bed: Bed) -> None:
        seen = list[DeliverRequest]()

        async def agent(request: DeliverRequest) -> DeliverReply | None:
            seen.append(request)
            await asyncio.sleep(0.05)
            return DeliverReply(True, "", "")

        await bed.serve(smtp=agent)
        bed.manager.begin()
        bed.manager.intake.new_mail(QueueId("4gXyzB12abcdz1"))
        queue_id = put("incoming", ["a@smtp.test"])
        bed.manager.intake.new_mail(queue_id)
        await bed.until(lambda: bool(seen))
        os.unlink(DIRECTORY.path("active", queue_id))
        await bed.idle()
        assert not files("deferred") | files("corrupt")

    run(Bed, test)


def test_file_that_vanishes_while_it_waits_for_its_turn() -> None:
    async def test(bed: Bed) -> None:
        now, first = time.time(), put("incoming", ["a@smtp.test"])
        bed.manager._deliveries._clock = lambda: now
        second = put("incoming", ["b@smtp.test"])
        addresses = {first: "a@smtp.test", second: "b@smtp.test"}
        agent, go_on, asked = RecordingAgent(), asyncio.Event(), list[QueueId]()

        async def slow(request: DeliverRequest) -> DeliverReply | None:
            asked.append(request.queue_id)
            await go_on.wait()
            return await agent(request)

        await bed.serve(smtp=slow)
        bed.manager.begin()
        await bed.until(lambda: files("active") == {first, second} and bool(asked))
        [waiting] = {first, second} - {*asked}  # a directory has no order
        os.unlink(DIRECTORY.path("active", waiting))
        now += 10
        go_on.set()
        await bed.idle()
        assert agent.delivered == [addresses[asked[0]]]
        assert not files("active") | files("deferred") | files("corrupt")

    run(one_at_a_time, test)


def test_a_probe_whose_file_cannot_be_opened_for_an_idle_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is over at once, and only once."""

    def no_more_files(queue_id: QueueId, now: float) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def deliver(bed: Bed) -> None:
        bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"], envelope=PROBE))
        await bed.idle()
        assert not files("active") | files("deferred")

    async def test(bed: Bed) -> None:
        await bed.serve(probes=RecordingAgent())
        bed.manager.begin()
        await deliver(bed)
        with monkeypatch.context() as patch:
            patch.setattr(bed.store.files, "take", no_more_files)
            await deliver(bed)
        await deliver(bed)

    run(Bed, test)


def one_at_a_time() -> Bed:
    return Bed(lambda name: limits(initial=1))


def test_dead_destination_defers_through_retry() -> None:
    async def test(bed: Bed) -> None:
        agent, retry = RecordingAgent(), RecordingAgent()
        agent.fate["a@smtp.test"] = DeliverReply(True, "4.4.1", "connect timed out")
        retry.fate = dict.fromkeys(["b@smtp.test", "c@smtp.test"], DeliverReply(True, "", ""))
        await bed.serve(smtp=agent, retry=retry)
        first, second = put("incoming", ["a@smtp.test"]), put("incoming", ["b@smtp.test"])
        bed.manager.begin()
        bed.manager.intake.incoming.request()
        bed.manager.intake.new_mail(first)
        bed.manager.intake.new_mail(second)
        await bed.idle()
        third = put("incoming", ["c@smtp.test"])
        bed.manager.intake.new_mail(third)
        await bed.idle()
        assert [request.queue_id for request in agent.requests] == [first]
        assert [(request.queue_id, request.nexthop) for request in retry.requests] == [
            (second, "4.4.1 delivery temporarily suspended: connect timed out"),
            (third, "4.4.1 delivery temporarily suspended: connect timed out"),
        ]
        assert files("deferred") == {first, second, third}
        agent.fate.clear()
        bed.manager.flush(third)  # one message: its destination is tried again
        await bed.idle()
        assert agent.delivered == ["c@smtp.test"]
        bed.manager.flush(QueueId(""))
        await bed.idle()
        assert sorted(agent.delivered) == ["a@smtp.test", "b@smtp.test", "c@smtp.test"]

    run(one_at_a_time, test)


def test_missing_transport_defers_without_any_agent() -> None:
    async def test(bed: Bed) -> None:
        await bed.serve()
        bed.manager.begin()
        queue_id = put("incoming", ["a@nothere.test"])
        bed.manager.intake.new_mail(queue_id)
        await bed.idle()
        assert files("deferred") == {queue_id}
        name, record = bed.reports.appended[0]
        assert name == "defer"
        assert record.targets[0].status == "4.3.0"
        assert record.targets[0].reason == "mail transport unavailable"

    run(Bed, test)


PROBE = Envelope("probe@example.org", flags=int(EnvelopeFlag.PROBE), arrival=1.0)


@pytest.mark.parametrize("fate", [DeliverReply(False, "", ""), DeliverReply(True, "4.4.1", "x")])
def test_a_probe_has_a_route_of_its_own_and_is_tried_once(fate: DeliverReply) -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        agent.fate["a@smtp.test"] = fate
        await bed.serve(probes=agent)
        bed.manager.begin()
        bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"], envelope=PROBE))
        await bed.idle()
        (request,) = agent.requests
        assert request.transport == "probes"
        assert request.flags & TraceFlag.MTA_VERIFY
        assert not files("incoming") | files("active") | files("deferred")
        assert not bed.reports.flushed
        assert not bed.reports.appended

    run(Bed, test)


def test_a_probe_that_no_agent_can_try_is_answered() -> None:
    async def test(bed: Bed) -> None:
        await bed.serve()
        bed.manager.begin()
        bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"], envelope=PROBE))
        await bed.idle()
        update = VerifyUpdate("a@smtp.test", int(AddressStatus.DEFER), "mail transport unavailable")
        assert bed.reports.verified == [update]
        assert not files("active") | files("deferred")
        assert not bed.reports.flushed
        assert not bed.reports.appended

    run(Bed, test)


def test_agent_that_dies_defers_its_mail() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        agent.fate["a@smtp.test"] = None
        await bed.serve(smtp=agent, retry=deferring)
        bed.manager.begin()
        first = put("incoming", ["a@smtp.test"])
        bed.manager.intake.new_mail(first)
        await bed.idle()
        second = put("incoming", ["b@smtp.test"])
        bed.manager.intake.new_mail(second)
        await bed.idle()
        assert len(agent.requests) == 1
        assert files("deferred") == {first, second}

    run(Bed, test)


def test_start_takes_over_the_active_queue() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        idle, busy = put("active", ["a@smtp.test"]), put("active", ["b@smtp.test"])
        Path(DIRECTORY.folder("defer", idle)).mkdir(exist_ok=True)
        Path(DIRECTORY.path("defer", idle)).touch()
        with open(DIRECTORY.path("active", busy), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # as an agent of the earlier process does
            bed.manager.begin()
            await bed.idle()
        assert agent.delivered == ["a@smtp.test"]
        assert files("deferred") == {busy}
        assert not files("defer")

    run(Bed, test)


def test_active_limit_holds_mail_back() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent(delay=0.01)
        await bed.serve(smtp=agent)
        bed.manager.begin()
        most = 0
        for _ in range(30):
            bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"]))
            most = max(most, len(bed.manager.active))
        await bed.idle()
        assert most == 4
        assert len(agent.delivered) == 30

    run(lambda: Bed(active_limit=4), test)


def test_many_recipients_are_read_in_parts() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        bed.manager.begin()
        addresses = [f"{n}@smtp.test" for n in range(500)]
        bed.manager.intake.new_mail(put("incoming", addresses))
        small = put("incoming", ["x@smtp.test"])
        bed.manager.intake.new_mail(small)
        await bed.idle()
        assert sorted(agent.delivered) == sorted([*addresses, "x@smtp.test"])
        assert not files("active") | files("deferred")
        assert not bed.scheduler.transport("smtp").jobs
        assert bed.scheduler.transport("smtp").in_core == 0

    run(lambda: Bed(lambda name: limits(in_core=60, recipients=7), recipient_limit=40), test)


def test_concurrency_and_reuse_hints() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent(delay=0.01)
        await bed.serve(smtp=agent)
        bed.manager.begin()
        for _ in range(12):
            bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"]))
        await bed.idle()
        assert agent.most == 3
        assert {request.flags for request in agent.requests[:2]} == {0}
        assert {request.flags for request in agent.requests[2:]} == {DeliverFlag.KEEP}
        bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"]))
        await bed.idle()
        assert agent.requests[-1].flags == 0

    run(lambda: Bed(lambda name: limits(initial=2, limit=3)), test)


def test_deferred_transport_waits_for_a_flush() -> None:
    async def test(bed: Bed) -> None:
        agent, retry = RecordingAgent(), RecordingAgent()
        retry.fate["a@smtp.test"] = DeliverReply(True, "", "")
        await bed.serve(smtp=agent, retry=retry)
        bed.manager.begin()
        bed.manager.intake.new_mail(put("incoming", ["a@smtp.test"]))
        await bed.idle()
        assert retry.requests[0].nexthop == "4.3.2 deferred transport"
        for letter in "AFD":
            bed.manager.trigger(letter)
        await bed.idle()
        assert agent.delivered == ["a@smtp.test"]

    run(lambda: Bed(defer_transports=["smtp"]), test)


def test_redirect_takes_the_place_of_all_recipients() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        bed.manager.begin()
        envelope = Envelope(sender="x@y", arrival=time.time(), redirect="one@smtp.test")
        bed.manager.intake.new_mail(put("incoming", ["a@q.test", "b@q.test"], envelope=envelope))
        await bed.idle()
        assert agent.delivered == ["one@smtp.test"]
        assert not files("active") | files("deferred")

    run(Bed, test)


def test_content_filter_replaces_the_route() -> None:
    async def test(bed: Bed) -> None:
        scan = RecordingAgent()
        await bed.serve(scan=scan)
        bed.manager.begin()
        envelope = Envelope(sender="x@y", arrival=time.time(), content_filter="scan:[::1]:25")
        bed.manager.intake.new_mail(put("incoming", ["a@q.test", "b@r.test"], envelope=envelope))
        await bed.idle()
        assert [request.nexthop for request in scan.requests] == ["[::1]:25"]

    run(Bed, test)


def test_redirect_of_a_message_that_is_read_in_parts() -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        bed.manager.begin()
        envelope = Envelope(sender="x@y", arrival=time.time(), redirect="one@smtp.test")
        addresses = [f"{n}@q.test" for n in range(100)]
        bed.manager.intake.new_mail(put("incoming", addresses, envelope=envelope))
        await bed.idle()
        assert agent.delivered == ["one@smtp.test"]
        assert not files("active") | files("deferred")

    run(lambda: Bed(recipient_limit=10), test)


def test_agents_that_serve_one_client_are_not_overtaken() -> None:
    """A connection that no agent serves yet gets no request that would be stuck there."""

    async def test(bed: Bed) -> None:
        requests: list[DeliverRequest] = []
        free = asyncio.Lock()  # one process, which serves a connection until it is closed

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async with free:
                writer.write(CODEC.encode(AgentReady()))
                while head := await reader.read(4):
                    request = CODEC.decode(await reader.readexactly(int.from_bytes(head, "big")))
                    assert isinstance(request, DeliverRequest)
                    requests.append(request)
                    await asyncio.sleep(0.005)
                    with QueueFile(f"active/{request.queue_id}", writable=True) as file:
                        for recipient in request.recipients:
                            file.mark_done(recipient)
                    writer.write(CODEC.encode(DeliverReply(False, "", "")))
            writer.close()

        bed.servers.append(await asyncio.start_unix_server(serve, "private/pipe"))
        bed.manager.begin()
        for number in range(20):
            bed.manager.intake.new_mail(put("incoming", [f"a@pipe.{number}"]))
        await bed.idle()
        assert len(requests) == 20
        assert not files("deferred") | files("active")

    run(Bed, test)


def test_a_defer_log_that_stays_holds_up_no_message(tmp_path: Path) -> None:
    """Side files that cannot be removed or read are logged, and the message goes on."""

    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=agent)
        queue_id = put("deferred", ["a@smtp.test"], mtime=1)
        os.makedirs(DIRECTORY.path("defer", queue_id))  # no unlink(2) removes it
        bed.manager.begin()
        bed.manager.trigger("A")
        await bed.until(lambda: agent.delivered == ["a@smtp.test"])
        await bed.idle()
        assert not files("active")

    run(Bed, test)


def test_a_log_that_nobody_can_look_for_keeps_the_message(tmp_path: Path) -> None:
    async def test(bed: Bed) -> None:
        os.rmdir("bounce")
        Path("bounce").write_text("not a directory")
        bed.reports.status = 128
        await bed.serve(smtp=RecordingAgent())
        queue_id = put("incoming", ["a@smtp.test"])
        bed.manager.begin()
        await bed.until(lambda: queue_id in files("deferred"))

    run(Bed, test)


def test_a_message_that_cannot_leave_active_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(bed: Bed) -> None:
        agent = RecordingAgent()
        await bed.serve(smtp=deferring)
        rename = DIRECTORY.rename
        broken = True

        def limited(queue_id: QueueId, old: str, new: str) -> str:
            if broken and new == "deferred":
                raise PermissionError(13, "Permission denied")
            return rename(queue_id, old, new)

        monkeypatch.setattr(type(DIRECTORY), "rename", lambda _, *about: limited(*about))
        queue_id = put("incoming", ["a@smtp.test"])
        bed.manager.begin()
        await bed.until(lambda: queue_id in bed.store.stuck)
        assert queue_id in files("active")
        broken = False
        bed.manager.trigger("D")
        await bed.until(lambda: queue_id in files("deferred"))
        assert not agent.delivered

    run(Bed, test)
