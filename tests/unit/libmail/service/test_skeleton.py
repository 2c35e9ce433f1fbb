"""A process of a service: capacity, retiring, idle time, fifos, datagrams, the end of master."""

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import cast

import pytest

from libmail.config import Config
from libmail.ipc.messages import CODEC, FlushReply, PassedClient
from libmail.log import LOG, Fatal
from libmail.net.ends import Ends
from libmail.net.unix_stream import UnixStream
from libmail.privileges import Jail
from libmail.service.connection import Connection
from libmail.service.exchanges import exchanges
from libmail.service.passing import Passed
from libmail.service.skeleton import BUSY, READY, STATUS, Handlers, Launch, Runtime, Startup
from tests.unit.waiting import until

FREE, FULL = 1, 0


class Echo(asyncio.Protocol):
    """Sends back what it gets; "bug" is one."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if data == b"bug":
            self._runtime.fail(RuntimeError("bug"))
        elif self._transport is not None:
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._runtime.session_ended()


class Process:
    """A running Runtime, and its master's view."""

    def __init__(
        self,
        *,
        capacity: int = 2,
        max_use: int = 0,
        max_idle: float = 0.0,
        datagrams: list[bytes] | None = None,
        passing: bool = False,
    ) -> None:
        self.master, status = socket.socketpair()
        self.master.setblocking(False)
        status.setblocking(False)
        self.top = Path(tempfile.mkdtemp(prefix="mail-"))
        kind = socket.SOCK_STREAM if datagrams is None else socket.SOCK_DGRAM
        self.listener = socket.socket(socket.AF_UNIX, kind)
        self.listener.bind(str(self.top / "s"))
        if datagrams is None:
            self.listener.listen(10)
        self.listener.setblocking(False)
        os.mkfifo(self.top / "f")
        self.fifo = os.open(self.top / "f", os.O_RDWR | os.O_NONBLOCK)
        self._status = status
        self._datagrams = datagrams
        launch = Launch(
            listeners=(self.listener,),
            status=status,
            generation=3,
            capacity=capacity,
            max_use=max_use,
            max_idle=max_idle,
            jail=Jail(None, None, no_new_privs=False),
            owner=os.getuid(),
            network=os.getuid(),
            fifos=(self.fifo,) if datagrams is None else (),
            passing=passing,
        )
        self.passed: list[Ends] | None = [] if passing else None
        self.runtime = Runtime(Startup(Config("/etc/postfix"), "test", ()), launch)

    async def _start(self, runtime: Runtime) -> Handlers:
        datagrams = self._datagrams
        if datagrams is not None:
            return Handlers(datagram=lambda data, _: datagrams.append(data))
        return Handlers(stream=lambda _: Echo(runtime), passed=self._passed)

    def _passed(self, client: Passed) -> None:
        assert self.passed is not None
        self.passed.append(client.ends)
        UnixStream(client.sock, Echo(self.runtime))

    async def run(self) -> None:
        await self.runtime.run(self._start)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.top / "s"))

    async def states(self, count: int) -> list[int]:
        """The next messages to master."""
        loop = asyncio.get_running_loop()
        found: list[int] = []
        async with asyncio.timeout(60):
            while len(found) < count:
                data = await loop.sock_recv(self.master, STATUS.size)
                pid, generation, state = STATUS.unpack(data)
                assert (pid, generation) == (os.getpid(), 3)
                found.append(state)
        return found

    def close(self) -> None:
        for one in (self.master, self._status, self.listener):
            one.close()
        os.close(self.fifo)
        for name in ("s", "f"):
            (self.top / name).unlink()
        self.top.rmdir()


def run(test: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(test())


async def ended(task: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(60):
        await task


def test_a_full_process_tells_master_and_takes_no_more() -> None:
    async def test() -> None:
        process = Process(capacity=2)
        serving = asyncio.create_task(process.run())
        assert await process.states(1) == [FREE]
        clients = [await process.connect() for _ in range(3)]
        assert await process.states(1) == [FULL]
        assert process.runtime.sessions == 2
        clients[0][1].close()
        assert await process.states(2) == [FREE, FULL]
        clients[2][1].write(b"hello")
        async with asyncio.timeout(60):
            assert await clients[2][0].read(5) == b"hello"
        process.runtime.retire()
        assert await process.states(1) == [-2]
        clients[1][1].close()
        assert await process.states(1) == [-1]
        assert not serving.done()
        clients[2][1].close()
        await ended(serving)
        process.close()

    run(test)


def test_a_process_that_computes_all_the_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        clock = asyncio.get_running_loop().time
        monkeypatch.setattr(time, "thread_time", clock)
        process = Process(capacity=5)
        task = asyncio.create_task(process.run())
        assert await process.states(1) == [READY]
        clients = [await process.connect() for _ in range(2)]
        assert await process.states(1) == [BUSY]
        monkeypatch.setattr(time, "thread_time", lambda: 0.0)
        assert await process.states(1) == [READY]
        for _, writer in clients:
            writer.close()
        process.runtime.retire()
        await ended(task)
        process.close()

    run(test)


def test_max_use_retires() -> None:
    async def test() -> None:
        process = Process(capacity=5, max_use=2)
        serving = asyncio.create_task(process.run())
        clients = [await process.connect() for _ in range(2)]
        assert await process.states(3) == [FREE, FULL, -2]
        for _, writer in clients:
            writer.close()
        await ended(serving)
        process.close()

    run(test)


def test_max_idle_retires() -> None:
    async def test() -> None:
        process = Process(max_idle=0.05)
        await ended(asyncio.create_task(process.run()))
        assert await process.states(2) == [FREE, FULL]
        process.close()

    run(test)


def test_a_process_may_stay_longer() -> None:
    """What anvil(8) has counted is in force for its time unit, with or without clients."""

    async def test() -> None:
        process = Process(max_idle=0.05)
        process.runtime.stay(0.01)
        assert process.runtime._max_idle == 0.05
        process.runtime.stay(1000.0)
        serving = asyncio.create_task(process.run())
        assert await process.states(1) == [FREE]
        timer = process.runtime._idle_timer
        assert timer is not None
        assert timer.when() > asyncio.get_running_loop().time() + 900
        process.runtime.retire()
        await ended(serving)
        process.close()

    run(test)


def test_a_table_that_changed_is_left_to_a_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = ""
    monkeypatch.setattr("libmail.service.skeleton.outdated", lambda: changed)

    async def test() -> None:
        nonlocal changed
        process = Process()
        serving = asyncio.create_task(process.run())
        assert await process.states(1) == [FREE]
        changed = "/etc/postfix/access"
        _, writer = await process.connect()
        await ended(serving)  # the client waits for another process
        assert await process.states(1) == [FULL]
        writer.close()
        process.close()

    run(test)


def test_datagrams_are_work_and_those_at_the_end_are_read() -> None:
    async def test() -> None:
        got: list[bytes] = []
        process = Process(max_idle=1000.0, datagrams=got)
        runtime = process.runtime
        serving = asyncio.create_task(process.run())
        await process.states(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(str(process.top / "s"))
            client.send(b"work")
            await until(lambda: got == [b"work"])
            runtime._idle()  # as if max_idle had passed since the start
            assert not runtime.retiring.is_set()
            runtime._last_datagram -= 1000.0
            runtime._idle()
            assert runtime.retiring.is_set()
            client.send(b"last")
        await ended(serving)
        assert got == [b"work", b"last"]
        process.close()

    run(test)


@pytest.mark.parametrize("datagrams", [False, True])
def test_type_that_the_service_cannot_serve(datagrams: bool) -> None:
    async def test() -> None:
        process = Process(datagrams=[] if datagrams else None)
        other = Handlers(stream=lambda _: Echo(process.runtime))
        if not datagrams:
            other = Handlers(datagram=lambda _, __: None)

        async def start(_: Runtime) -> Handlers:
            return other

        with pytest.raises(Fatal, match=r"unsupported transport type: (unix-dgram|unix|fifo)"):
            await process.runtime.run(start)
        process.close()

    run(test)


def test_what_is_written_to_a_fifo_comes_as_a_session() -> None:
    async def test() -> None:
        got: list[bytes] = []

        class Reader(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                got.append(data)

            def connection_lost(self, exc: Exception | None) -> None:
                process.runtime.session_ended()
                process.runtime.retire()

        async def start(runtime: Runtime) -> Handlers:
            return Handlers(stream=lambda _: Reader())

        process = Process()
        serving = asyncio.create_task(process.runtime.run(start))
        await process.states(1)
        os.write(process.fifo, b"W")
        await ended(serving)
        assert got == [b"W"]
        process.close()

    run(test)


def test_a_bug_ends_the_process() -> None:
    async def test() -> None:
        process = Process()
        serving = asyncio.create_task(process.run())
        _, writer = await process.connect()
        writer.write(b"bug")
        with pytest.raises(RuntimeError, match=r"^bug$"):
            await ended(serving)
        writer.close()
        process.close()

    run(test)


def test_a_bug_in_a_session_costs_no_other_session() -> None:
    """What a client says ends no process."""

    async def test() -> None:
        logged: list[str] = []
        LOG.open(lambda severity, head, text: logged.append(text), "postfix/test")

        async def session(connection: Connection) -> None:
            while True:
                if (await connection.receive_as(FlushReply)).reason == "bug":
                    raise RuntimeError("bug")
                connection.send(FlushReply("alive"))

        async def start(runtime: Runtime) -> Handlers:
            return Handlers(stream=exchanges(runtime, session))

        process = Process()
        serving = asyncio.create_task(process.runtime.run(start))
        reader, writer = await process.connect()
        other_reader, other_writer = await process.connect()
        writer.write(CODEC.encode(FlushReply("bug")))
        assert await reader.read() == b""
        other_writer.write(CODEC.encode(FlushReply("")))
        assert b"alive" in await other_reader.readuntil(b"alive")
        assert logged[0].startswith("panic: test: RuntimeError: bug (")
        writer.close()
        other_writer.close()
        process.runtime.retire()
        await ended(serving)
        process.close()

    run(test)


def test_users_are_limited_and_have_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmail.service.user_limits._MOST", 2)
    monkeypatch.setattr("libmail.service.exchanges.FIRST_MESSAGE", 0.05)

    async def test() -> None:
        logged: list[str] = []
        LOG.open(lambda severity, head, text: logged.append(text), "postfix/test")

        async def session(connection: Connection) -> None:
            while True:
                connection.send(await connection.receive_as(FlushReply))

        async def start(runtime: Runtime) -> Handlers:
            runtime.trusted = frozenset()
            return Handlers(stream=exchanges(runtime, session, anyone=True))

        process = Process(capacity=10)
        serving = asyncio.create_task(process.runtime.run(start))
        clients = [await process.connect() for _ in range(5)]
        talking, writer = clients[0]
        writer.write(CODEC.encode(FlushReply("one")))
        await talking.readuntil(b"one\0")
        for reader, _ in clients[1:]:  # one that says nothing, and three that are too many
            assert await reader.read() == b""
        writer.write(CODEC.encode(FlushReply("two")))
        await talking.readuntil(b"two\0")
        again, another = await process.connect()  # there is room again
        another.write(CODEC.encode(FlushReply("three")))
        await again.readuntil(b"three\0")
        assert len([line for line in logged if "too many connections of one user" in line]) == 1
        for _, one in (*clients, (again, another)):
            one.close()
        process.runtime.retire()
        await ended(serving)
        process.close()

    run(test)


def test_the_end_of_master_is_the_end() -> None:
    async def test() -> None:
        process = Process()
        serving = asyncio.create_task(process.run())
        await process.states(1)
        process.master.close()
        await ended(serving)
        process.close()

    run(test)


ENDS = Ends("192.0.2.1", "1234", "192.0.2.25", "25")


def hand_over(process: Process, message: bytes, descriptors: list[int]) -> None:
    with socket.socket(socket.AF_UNIX) as carrier:
        carrier.connect(str(process.top / "s"))
        socket.send_fds(carrier, [message], descriptors)


def test_a_client_that_is_handed_over() -> None:
    async def test() -> None:
        process = Process(passing=True)
        serving = asyncio.create_task(process.run())
        assert await process.states(1) == [FREE]
        ours, theirs = socket.socketpair()
        with theirs:
            hand_over(process, CODEC.encode(PassedClient(*ENDS)), [theirs.fileno()])
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(b"hello")
        async with asyncio.timeout(60):
            assert await reader.readexactly(5) == b"hello"
        assert process.passed == [ENDS]
        assert process.runtime.sessions == 1
        writer.close()
        await until(lambda: process.runtime.sessions == 0)
        process.runtime.stop()
        await ended(serving)
        process.close()

    run(test)


@pytest.mark.parametrize("what", ["nothing", "no client", "no socket", "two", "another message"])
def test_what_is_handed_over_is_looked_at(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(LOG, "warning", warnings.append)

    async def test() -> None:
        process = Process(passing=True)
        serving = asyncio.create_task(process.run())
        assert await process.states(1) == [FREE]
        message = CODEC.encode(PassedClient(*ENDS))
        with open("/dev/null", "rb") as file, socket.socket() as sock:
            descriptors = {"no socket": [file.fileno()], "two": [sock.fileno()] * 2}
            if what == "another message":
                message = CODEC.encode(FlushReply(""))
            hand_over(
                process,
                b"" if what == "nothing" else message,
                [] if what == "nothing" else descriptors.get(what, []),
            )
        if what != "two":
            await until(lambda: len(warnings) == 1)
            assert warnings[0].startswith("test: no client was handed over: ")
        await until(lambda: process.runtime.sessions == 0)
        process.runtime.stop()
        await ended(serving)
        process.close()

    run(test)


def test_not_every_program_can_be_handed_clients() -> None:
    async def test() -> None:
        process = Process(passing=True, datagrams=[])
        with pytest.raises(Fatal, match="unsupported transport type: pass"):
            await process.run()
        process.close()

    run(test)
