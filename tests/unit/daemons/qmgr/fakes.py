"""A queue in a temporary directory, with fake agents, resolver and report services."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Final

from daemons.qmgr.agents import AgentTimes
from daemons.qmgr.backoff import Backoff
from daemons.qmgr.clog import ClogWarnings
from daemons.qmgr.closing import Closing, ReportServices
from daemons.qmgr.feedback import Feedback, WindowRules
from daemons.qmgr.intake import IntakeRules
from daemons.qmgr.manager import ManagerRules, QueueManager
from daemons.qmgr.params import TransportLimits
from daemons.qmgr.routing import RoutingRules
from daemons.qmgr.scheduler import Scheduler
from daemons.qmgr.store import Store
from libmail.ipc.codec import Unframer, WireError
from libmail.ipc.messages import (
    CODEC,
    AgentReady,
    BounceAppend,
    BounceFlush,
    BounceReply,
    DeliverReply,
    DeliverRequest,
    Envelope,
    Nexthop,
    QueueId,
    Recipient,
    ResolveReply,
    Transport,
    VerifyReply,
    VerifyUpdate,
)
from libmail.queue.directory import QUEUES, QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileWriter
from libmail.queue.spare import SpareFiles
from libmail.service.pool import ServicePool
from tests.unit.waiting import until

DIRECTORY: Final = QueueDirectory(frozenset({"deferred", "defer"}), 1)
BACKOFF: Final = Backoff(300, 4000, 432000, 432000)
DONE: Final = DeliverReply(False, "", "")

Agent = Callable[[DeliverRequest], Awaitable[DeliverReply | None]]


def limits(
    *,
    initial: int = 5,
    limit: int = 20,
    cohorts: int = 1,
    recipients: int = 50,
    rate_delay: float = 0.0,
    transport_rate_delay: float = 0.0,
    in_core: int = 20000,
) -> TransportLimits:
    one = Feedback(1.0)
    return TransportLimits(
        window=WindowRules(initial, limit, one, one, cohorts),
        recipient_limit=recipients,
        rate_delay=rate_delay,
        transport_rate_delay=transport_rate_delay,
        in_core=in_core,
    )


def make_directories(top: Path) -> None:
    for name in (*QUEUES, "spare", "private", "public"):
        (top / name).mkdir(exist_ok=True)


def put(
    queue_name: str,
    recipients: Sequence[str],
    *,
    sender: str = "from@example.org",
    arrival: float | None = None,
    envelope: Envelope | None = None,
    mtime: float | None = None,
) -> QueueId:
    """A complete message in a queue."""
    writer = QueueFileWriter(DIRECTORY, queue_name, long_ids=True)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(b"\r\nbody\r\n")
    arrival = time.time() if arrival is None else arrival
    envelope = envelope or Envelope(sender=sender, arrival=arrival)
    writer.complete(envelope, [Recipient(address) for address in recipients], ContentFlag(0))
    if mtime is not None:
        os.utime(writer.fd, (mtime, mtime))
    writer.close()
    return writer.queue_id


def files(queue_name: str) -> set[str]:
    return {entry.name for entry in DIRECTORY.scan(queue_name)}


REPORTERS = ("bounce", "defer", "trace", "verify")


class FakeResolver:
    """transport is the part of the domain before the first dot, nexthop the domain."""

    def known_route(self, sender: str, address: str) -> ResolveReply | None:
        domain = address.rpartition("@")[2]
        if domain.startswith("slow."):
            return None
        return ResolveReply(4096, Transport(domain.partition(".")[0]), Nexthop(domain), address)

    async def resolve(self, sender: str, address: str) -> ResolveReply:
        await asyncio.sleep(0)
        return ResolveReply(4096, Transport("smtp"), Nexthop("slow.test"), address)

    async def resolve_probe(self, sender: str, address: str) -> ResolveReply:
        nexthop = address.rpartition("@")[2]
        return ResolveReply(4096, Transport("probes"), Nexthop(nexthop), address)

    async def prefetch(self, sender: str, addresses: Iterable[str]) -> None:
        """Knows no more than before."""


async def serve_agent(name: str, agent: Agent, *, greet: bool = True) -> asyncio.Server:
    """An agent on private/<name>; when it answers None, it closes the connection instead."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unframer = Unframer(CODEC)
        if greet:
            writer.write(CODEC.encode(AgentReady()))
        while data := await reader.read(1 << 20):
            unframer.receive_data(data)
            for request in unframer:
                if not isinstance(request, DeliverRequest):
                    raise WireError(str(request))
                reply = await agent(request)
                if reply is None:
                    writer.close()
                    return
                writer.write(CODEC.encode(reply))
        writer.close()

    return await asyncio.start_unix_server(serve, f"private/{name}")


class FakeReports:
    """bounce, defer, trace and verify; keeps what it is asked, refuses while `status` is not 0."""

    def __init__(self) -> None:
        self.flushed: list[tuple[str, str, QueueId]] = []
        self.appended: list[tuple[str, BounceAppend]] = []
        self.verified: list[VerifyUpdate] = []
        self.status = 0

    async def start(self) -> list[asyncio.Server]:
        return [await self._serve(name) for name in REPORTERS]

    async def _serve(self, name: str) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            unframer = Unframer(CODEC)
            while data := await reader.read(65536):
                unframer.receive_data(data)
                for request in unframer:
                    self._note(name, request)
                    probe = isinstance(request, VerifyUpdate)
                    reply = VerifyReply(0, "") if probe else BounceReply(self.status, "")
                    writer.write(CODEC.encode(reply))
            writer.close()

        return await asyncio.start_unix_server(serve, f"private/{name}")

    def _note(self, name: str, request: object) -> None:
        if isinstance(request, BounceFlush):
            self.flushed.append((name, request.kind, request.queue_id))
            if self.status == 0 and request.kind != "warn":
                DIRECTORY.remove(name, request.queue_id)
        elif isinstance(request, BounceAppend):
            self.appended.append((name, request))
        elif isinstance(request, VerifyUpdate):
            self.verified.append(request)


class Bed:
    """A queue manager with everything around it; run it inside an event loop."""

    def __init__(
        self,
        limits_of: Callable[[str], TransportLimits] = lambda name: limits(),
        *,
        active_limit: int = 20000,
        recipient_limit: int = 20000,
        backoff: Backoff = BACKOFF,
        defer_transports: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        dead_time: float = 300,
        retry_time: float = 60,
    ) -> None:
        self.reports = FakeReports()
        self.pools = [ServicePool(f"private/{name}") for name in REPORTERS]
        self.servers: list[asyncio.Server] = []
        self.tasks: set[asyncio.Task[object]] = set()
        self.scheduler = Scheduler(limits_of, dead_time=dead_time, retry_time=retry_time)
        self.store = Store(DIRECTORY, SpareFiles(8))
        self.manager = QueueManager(
            rules=ManagerRules(
                intake=IntakeRules(
                    active_limit=active_limit,
                    recipient_limit=recipient_limit,
                    recipient_minimum=10,
                    retry_delay=backoff.minimal,
                ),
                confirm_cleared=False,
                feedback_debug=False,
                agent_times=AgentTimes(),
            ),
            routing=RoutingRules(
                "error", "retry", "", frozenset(defer_transports), "double-bounce", "", limits_of
            ),
            scheduler=self.scheduler,
            store=self.store,
            resolver=FakeResolver(),
            closing=Closing(self.store, ReportServices(*self.pools), backoff, clock),
            clogs=ClogWarnings(active_limit, 300),
            spawn=self._spawn,
            clock=clock,
        )

    async def serve(self, **agents: Agent) -> None:
        """Start the report services and these agents."""
        self.servers += await self.reports.start()
        for name, agent in agents.items():
            self.servers.append(await serve_agent(name, agent))

    async def close(self) -> None:
        await self.manager.stop(0)
        await asyncio.sleep(0.02)  # servers see the end of what they have just accepted
        for pool in self.pools:
            pool.close()
        for server in self.servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=0.3)
        await asyncio.sleep(0.01)

    def _spawn(self, coroutine: Coroutine[object, object, object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)

    async def idle(self) -> None:
        """Until nothing is active and no scan is under way."""
        manager = self.manager
        await until(
            lambda: (
                not (
                    manager.active
                    or manager.intake.incoming.pending
                    or manager.intake.deferred.pending
                )
            )
        )


class RecordingAgent:
    """Delivers: marks recipients done in the file, unless `fate` says otherwise."""

    def __init__(self, delay: float = 0.0) -> None:
        self.requests: list[DeliverRequest] = []
        self.delivered: list[str] = []
        self.fate: dict[str, DeliverReply | None] = {}
        self.now = self.most = 0
        self.delay = delay

    async def __call__(self, request: DeliverRequest) -> DeliverReply | None:
        self.requests.append(request)
        self.now += 1
        self.most = max(self.most, self.now)
        if self.delay:
            await asyncio.sleep(self.delay)
        self.now -= 1
        reply: DeliverReply | None = DONE
        path = DIRECTORY.path("active", request.queue_id)
        with QueueFile(path, writable=True) as file:
            for recipient in request.recipients:
                if recipient.address in self.fate:
                    reply = self.fate[recipient.address]
                    continue
                self.delivered.append(recipient.address)
                file.mark_done(recipient)
        return reply


async def deferring(request: DeliverRequest) -> DeliverReply | None:
    """What retry: does."""
    return DeliverReply(True, "", "")
