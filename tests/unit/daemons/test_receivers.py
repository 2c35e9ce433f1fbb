"""Whatever a frame may hold, who receives it answers, refuses, or drops the connection.

Each session of a daemon that serves the wire is given arbitrary messages, among them all that it
expects with arbitrary content. Another exception would be a bug that a client can cause, and an
answer that cannot be encoded as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemons import cleanup as cleanup_module
from daemons import proxymap
from daemons import trivial_rewrite as rewriting
from daemons.anvil import Anvil
from daemons.anvil.counts import Counts
from daemons.anvil.failures import Failures
from daemons.bounce import Reporter
from daemons.cleanup.header import HeaderEditor
from daemons.cleanup.message import Shared
from daemons.cleanup.notify import QmgrClient
from daemons.cleanup.recipients import BccTables
from daemons.cleanup.reports import Reports
from daemons.qmgr.requests import RequestConnection, RequestHandlers
from daemons.verify.verifier import Verifier, VerifyParams
from libmail.agents.delivery import Bounced, Delivery, DeliveryParams, DeliveryServices, _deliver
from libmail.config import Config
from libmail.files.commit import GroupCommit
from libmail.ipc.codec import Chunk
from libmail.ipc.messages import (
    CODEC,
    BounceAppend,
    BounceFlush,
    BounceReply,
    CleanupFlag,
    CleanupOpen,
    CleanupResult,
    CleanupStatus,
    ClientEvent,
    ClientUse,
    DeliverRequest,
    Envelope,
    FlushAdd,
    FlushSite,
    NewMail,
    QueueFlush,
    QueueId,
    Recipient,
    Recipients,
    ResolveMany,
    ResolveRequest,
    RewriteRequest,
    TableDelete,
    TableList,
    TableLookup,
    TableUpdate,
    Target,
    VerifyQuery,
    VerifyUpdate,
)
from libmail.lookup.resolving import AddressResolver
from libmail.lookup.rewriting import Rewriter
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import QueueFile, QueueFileWriter, open_queue_file
from libmail.queue.spare import SpareSupply
from libmail.service.connection import Connection
from libmail.service.pool import ServicePool
from libmail.tables.builtin.inline import open_named as open_inline
from libmail.tables.builtin.internal import InternalTable
from libmail.tables.maps import Maps
from libmail.tables.table import TableOptions
from tests.unit.daemons.bounce.test_reporter import World as BounceWorld
from tests.unit.daemons.cleanup.conftest import (
    FILTERS,
    HEADERS,
    LocalRewriter,
    make_inspector,
    make_raw,
    mapper_maker,
)
from tests.unit.daemons.cleanup.test_message import PARAMS as CLEANUP
from tests.unit.daemons.receivers import CHUNKS, TRIGGERS, of_type, play
from tests.unit.daemons.test_flush import World as FlushWorld
from tests.unit.libmail.clients.fakes import FakeCleanup
from tests.unit.libmail.lookup.test_resolving import PARAMS as RESOLVE
from tests.unit.libmail.lookup.test_resolving import routing
from tests.unit.libmail.lookup.test_rewriting import PARAMS as REWRITE

HERE = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
QUEUE = QueueDirectory(frozenset())
FOLDERS = ("incoming", "active", "hold", "bounce", "defer", "trace", "flush", "corrupt", "maildrop")


@contextmanager
def queue() -> Iterator[Path]:
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="mail-") as top:
        os.chdir(top)
        try:
            for name in FOLDERS:
                os.mkdir(name)
            yield Path(top)
        finally:
            os.chdir(before)


class _Notified:
    slow = True

    def new_mail(self, queue_id: str) -> None:
        with QueueFile(f"incoming/{queue_id}") as file:  # must be one that can be read
            file.envelope()
            assert list(file.recipients())

    async def throttle(self) -> None:
        pass


@HERE
@given(
    opened=st.sampled_from([0, 1, 32, 33, 36, 63, 511]),
    another=st.booleans(),
    envelope=of_type(Envelope),
    units=st.lists(of_type(Recipients), min_size=1, max_size=3),
    more=st.lists(CHUNKS, max_size=5) | st.lists(CHUNKS | of_type(Envelope) | TRIGGERS, max_size=3),
)
def test_cleanup(
    opened: int, another: bool, envelope: Envelope, units: list[object], more: list[object]
) -> None:
    """What is left is the message that was accepted, and no file for one that did not come."""
    mapper = mapper_maker(LocalRewriter())()

    async def serve(connection: Connection) -> None:
        shared = Shared(
            CLEANUP, QUEUE, SpareSupply(), mapper, HeaderEditor(HEADERS, mapper),
            make_inspector(), make_raw(), BccTables(Maps("a", ()), Maps("b", ())), GroupCommit(1),
            Reports(*(ServicePool(f"private/{name}", wait=False) for name in ("bounce", "trace"))),
            FILTERS,
        )  # fmt: skip
        await cleanup_module._Clients(shared, cast(QmgrClient, _Notified()), frozenset()).serve(
            connection
        )

    with queue():
        sent = play(
            serve,
            [
                CleanupOpen(opened, another),
                envelope,
                *units,
                *more,
                Chunk(b"Subject: x\r\n"),
                Chunk(b""),
            ],
        )
        results = [one for one in sent if isinstance(one, CleanupResult)]
        left = os.listdir("incoming") + os.listdir("hold")
        assert len(left) == (1 if results and not results[0].status and not opened & 8 else 0) or (
            any(getattr(one, "cleanup_flags", 0) & 8 for one in (envelope, *units, *more))
        )


@pytest.mark.parametrize("network", [frozenset[int](), frozenset({os.geteuid()})])
def test_what_faces_the_network_has_no_notifications(network: frozenset[int]) -> None:
    """Which may have any size."""
    mapper = mapper_maker(LocalRewriter())()

    async def serve(connection: Connection) -> None:
        shared = Shared(
            replace(CLEANUP, message_size_limit=1000), QUEUE, SpareSupply(), mapper,
            HeaderEditor(HEADERS, mapper), make_inspector(), make_raw(),
            BccTables(Maps("a", ()), Maps("b", ())), GroupCommit(1),
            Reports(*(ServicePool(f"private/{name}", wait=False) for name in ("bounce", "trace"))),
            FILTERS,
        )  # fmt: skip
        clients = cleanup_module._Clients(shared, cast(QmgrClient, _Notified()), network)
        await clients.serve(connection)

    content = [Chunk(b"Subject: x\r\n\r\n"), Chunk(b"x" * 2000 + b"\r\n"), Chunk(b"")]
    recipients = Recipients((Recipient("a@b"),))
    with queue():
        flags = int(CleanupFlag.UNLIMITED)
        sent = play(serve, [CleanupOpen(flags, False), Envelope("x@y"), recipients, *content])
    (result,) = (one for one in sent if isinstance(one, CleanupResult))
    status = int(CleanupStatus.SIZE) if network else 0
    assert result.status == status
    begun = Envelope("x@y", cleanup_flags=flags)  # whose queue id the client knows
    with queue():
        first = [CleanupOpen(0, True), Envelope("x@y"), recipients, Chunk(b"")]
        sent = play(serve, [*first, begun, recipients, *content])
        assert not play(serve, [begun, recipients, *content])
    results = [one for one in sent if isinstance(one, CleanupResult)]
    assert [one.status for one in results] == [0, status]
    assert results[1].queue_id == results[0].next_id


@pytest.mark.parametrize("network", [frozenset[int](), frozenset({os.geteuid()})])
def test_what_faces_the_network_has_no_reports_sent(network: frozenset[int]) -> None:
    target = Target("a@b", "", "", 0, 0, "failed", "5.0.0", "no", "", "", "", "", 0.0)
    append = BounceAppend(QueueId("ABCDEF1234"), (target,))
    flush = BounceFlush("bounce", "deferred", QueueId("ABCDEF1234"), "", 0, "", "", ())
    with queue():
        reporter = BounceWorld("bounce").reporter
        reporter._network = network
        sent = play(reporter.serve, [append, flush])
        kept = os.listdir("bounce")
    assert len(sent) == (1 if network else 2)
    assert kept == (["ABCDEF1234"] if network else [])


@HERE
@given(
    st.lists(of_type(BounceAppend) | of_type(BounceFlush) | TRIGGERS, max_size=4),
    st.sampled_from(["bounce", "defer", "trace"]),
)
def test_bounce(units: list[object], name: str) -> None:
    with queue():
        reporter: Reporter = BounceWorld(name, "bounce", "delay").reporter
        reporter._flush_service.deferred = _nothing  # type: ignore[method-assign]
        play(reporter.serve, units)


async def _nothing(queue_id: str, addresses: object) -> None:
    pass


@HERE
@given(st.lists(of_type(FlushAdd) | of_type(FlushSite) | TRIGGERS, max_size=4))
def test_flush(units: list[object]) -> None:
    with queue():
        play(FlushWorld().flusher.serve, units)


@HERE
@given(of_type(DeliverRequest))
def test_agent(request: DeliverRequest) -> None:

    async def agent(delivery: Delivery) -> None:
        delivery.fail_destination("4.0.0", "a\0b")
        await delivery.finish_all(delivery.unfinished, Bounced("5.0.0", "a\0b\n" * 9000, "x\0"))

    async def record(asked: object, answer: type[BounceReply]) -> BounceReply:
        CODEC.encode(asked)
        return answer(0, "")

    async def run() -> None:
        params = DeliveryParams(False, "bounce", "defer", "trace", 0.01, "verify")
        services = DeliveryServices.of(params)
        for pool in (services.bounce, services.defer, services.trace, services.verify):
            pool.call = record  # type: ignore[method-assign,assignment]
        fd = open_queue_file(f"active/{writer.queue_id}", writable=True)
        CODEC.encode(await _deliver(agent, services, request, fd))

    with queue():
        writer = QueueFileWriter(QUEUE, "active", long_ids=False)
        writer.complete(Envelope("a@b"), [Recipient("x@y")], 0)
        writer.close()
        request = request._replace(queue_id=writer.queue_id)
        asyncio.run(run())


@HERE
@given(
    st.lists(of_type(NewMail) | of_type(QueueFlush) | of_type(TableUpdate), max_size=4),
    st.binary(max_size=50),
    st.sampled_from([0, 2001]),
)
def test_qmgr_front(units: list[object], garbage: bytes, uid: int) -> None:
    async def refusal(number: int) -> str:
        return ""

    def note(*about: object) -> None:
        pass

    async def run() -> None:
        tasks = []
        handlers = RequestHandlers(
            note, note, note, note, refusal, lambda task: tasks.append(asyncio.create_task(task))
        )
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection = RequestConnection(ours, handlers)
            connection.trusted = uid == 0
            for unit in units:
                connection.data_received(CODEC.encode(unit))
            if garbage:
                connection.data_received(garbage)
            if tasks:
                await asyncio.wait(tasks)
                for task in tasks:
                    task.result()

    asyncio.run(run())


@HERE
@given(
    st.lists(
        of_type(RewriteRequest) | of_type(ResolveRequest) | of_type(ResolveMany) | TRIGGERS,
        max_size=4,
    )
)
def test_trivial_rewrite(units: list[object]) -> None:
    resolver = AddressResolver(RESOLVE, Rewriter(REWRITE))
    how = rewriting.Routing(resolver, routing(RESOLVE))
    prepared = rewriting.Prepared(Rewriter(REWRITE), how, how)

    async def serve(connection: Connection) -> None:
        await rewriting.serve(prepared, connection)

    play(serve, units)


@HERE
@given(st.lists(of_type(ClientEvent) | of_type(ClientUse) | TRIGGERS, max_size=6))
def test_anvil(units: list[object]) -> None:
    play(Anvil(Counts(60.0, lambda *_: None), Failures(60.0)).serve, units)


@HERE
@given(st.lists(of_type(VerifyQuery) | of_type(VerifyUpdate) | TRIGGERS, max_size=4))
def test_verify(units: list[object]) -> None:
    params = Config("").load(VerifyParams)
    table = InternalTable("internal:x", TableOptions(fold=False))
    play(Verifier(params, table, FakeCleanup()).serve, units)


@HERE
@given(
    st.lists(
        of_type(TableLookup)
        | of_type(TableUpdate)
        | of_type(TableDelete)
        | of_type(TableList)
        | TRIGGERS,
        max_size=4,
    )
)
def test_proxymap(units: list[object]) -> None:
    name = "{ {alice@example.test=x} {0123456789=y} {bounce=z} }"
    tables = proxymap.Tables(
        "proxy_read_maps", {f"inline:{name}": open_inline("inline", name, TableOptions())}, None
    )

    async def serve(connection: Connection) -> None:
        await proxymap.serve(tables, connection)

    play(serve, units)
