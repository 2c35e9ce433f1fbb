"""An smtpd on loopback, between a cleanup and a trivial-rewrite that are played here."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from daemons.smtpd import Front, make_server
from daemons.smtpd.prepared import open_tables
from daemons.smtpd.server import Server
from libmail.clients.cleanup import CleanupClient
from libmail.clients.rewrite import RewriteClient
from libmail.config import open_config
from libmail.dns.answers import NotFound, TempFail
from libmail.ipc.codec import Chunk
from libmail.ipc.messages import (
    CleanupAbort,
    CleanupAmend,
    CleanupOpen,
    CleanupOpened,
    CleanupResult,
    Envelope,
    Nexthop,
    QueueId,
    Recipients,
    ResolveFlag,
    ResolveReply,
    ResolveRequest,
    RewriteReply,
    RewriteRequest,
    Transport,
)
from libmail.log import LOG
from libmail.net.ends import Ends
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.passing import Passed
from libmail.service.pool import ServicePool

MAIN_CF = """
compatibility_level = 3.6
myhostname = mail.example.test
mydomain = example.test
mydestination = example.test, mail.example.test, localhost
mynetworks = 127.0.0.0/8
relay_domains = relayed.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
local_recipient_maps = inline:{alice=x, bob=x, carol=x, dave=x}
smtpd_error_sleep_time = 0
smtpd_peername_lookup = no
"""


@dataclass
class Message:
    """What cleanup got."""

    queue_id: str
    envelope: Envelope
    recipients: list[str] = field(default_factory=list)
    content: bytes = b""
    amendment: CleanupAmend | None = None


@dataclass
class Mail:
    """What the fakes saw, and how they are to behave."""

    messages: list[Message] = field(default_factory=list)
    aborted: int = 0
    opened: int = 0
    result: CleanupResult | None = None
    log: list[str] = field(default_factory=list)


def resolve(request: ResolveRequest) -> ResolveReply:
    """A few domains; the class is in the name."""
    domain = request.address.rpartition("@")[2].lower() if "@" in request.address else ""
    flag, transport, nexthop = ResolveFlag.DEFAULT, "smtp", domain
    if domain in ("", "example.test", "mail.example.test", "localhost"):
        flag, transport = ResolveFlag.LOCAL, "local"
    elif domain == "relayed.test":
        flag, transport = ResolveFlag.RELAY, "relay"
    elif domain == "valias.test":
        flag, transport = ResolveFlag.ALIAS, "error"
        nexthop = "5.1.1 User unknown in virtual alias table"
    elif domain == "fail.test":
        flag = ResolveFlag.FAIL
    elif ".." in domain:
        flag = ResolveFlag.ERROR
    flags = int(flag)
    if "%" in request.address:
        flags |= ResolveFlag.ROUTED
    return ResolveReply(flags, Transport(transport), Nexthop(nexthop), request.address)


class FakeResolver:
    """The system's resolver, and the DNS, without a network."""

    async def name(self, address: str) -> str:
        raise NotFound(address, "PTR", "no name")

    async def addresses(self, host: str, protocols: str = "all") -> tuple[str, ...]:
        raise NotFound(host, "A", "no address")

    async def lookup(self, name: str, rrtype: str) -> object:
        if name.endswith("broken.test"):
            raise TempFail(name, rrtype, "try again")
        raise NotFound(name, rrtype, "not found")


class FakeRuntime:
    """The part of Runtime that the front uses."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.tasks: set[asyncio.Task[object]] = set()
        self.session_over = asyncio.Event()
        self.retired = False

    def spawn(self, coroutine: object) -> asyncio.Task[object]:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def retire(self) -> None:
        self.retired = True

    def session_failed(self, error: Exception) -> None:
        LOG.panic(f"smtpd: {error!r}")

    def session_ended(self) -> None:
        self.session_over.set()


async def _cleanup(mail: Mail, connection: Connection) -> None:
    while True:
        await connection.receive_as(CleanupOpen)
        mail.opened += 1
        queue_id = QueueId(f"QID{mail.opened}")
        connection.send(CleanupOpened(queue_id))
        message: Message | None = None
        while True:
            event = await connection.receive()
            if isinstance(event, CleanupAbort):
                mail.aborted += 1
                break
            if isinstance(event, Envelope):
                message = Message(queue_id, event)
            elif isinstance(event, Recipients) and message is not None:
                message.recipients += [r.address for r in event.recipients]
            elif isinstance(event, CleanupAmend) and message is not None:
                message.amendment = event
            elif isinstance(event, Chunk) and message is not None:
                message.content += event.data
                if not event.data:
                    result = mail.result or CleanupResult(0, "2.0.0", "", queue_id)
                    if not result.status:
                        mail.messages.append(message)
                    connection.send(result)
                    break


async def _rewrite(connection: Connection) -> None:
    while True:
        request = await connection.receive()
        if isinstance(request, RewriteRequest):
            address = request.address
            connection.send(RewriteReply(address if "@" in address else f"{address}@example.test"))
        elif isinstance(request, ResolveRequest):
            connection.send(resolve(request))


@dataclass
class Instance:
    """A running smtpd. mail: what came through. runtime: of its front. server: of its sessions."""

    port: int
    mail: Mail
    runtime: FakeRuntime
    server: Server
    front: Front

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def take_over(self, *said: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The other end of a client that postscreen hands over; it has said this there."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        client = Passed(theirs, Ends("192.0.2.9", "4711", "192.0.2.1", "25"), said)
        self.front.channels.take_over(client)
        return await asyncio.open_connection(sock=ours)


@asynccontextmanager
async def running(folder: Path, main_cf: str = "") -> AsyncIterator[Instance]:
    """An smtpd with these settings; the working directory is its queue directory."""
    (folder / "main.cf").write_text(MAIN_CF + main_cf, encoding="utf-8")
    for name in ("public", "private"):
        (folder / name).mkdir(exist_ok=True)
    os.chdir(folder)
    mail = Mail()
    LOG.open(lambda severity, head, text: mail.log.append(text), "postfix/smtpd")
    loop = asyncio.get_running_loop()
    runtime = FakeRuntime()
    serving: list[asyncio.AbstractServer] = []
    connections: list[Connection] = []

    def service(handle: object) -> Connection:
        connection = Connection("fake")
        connections.append(connection)

        async def run() -> None:
            try:
                await handle(connection)  # type: ignore[operator]
            except ConnectionLost:
                connection.close()

        runtime.spawn(run())
        return connection

    async def cleanup(connection: Connection) -> None:
        await _cleanup(mail, connection)

    serving.append(await loop.create_unix_server(lambda: service(cleanup), "public/cleanup"))
    serving.append(await loop.create_unix_server(lambda: service(_rewrite), "private/rewrite"))
    resolver = FakeResolver()
    prepared = open_tables(
        open_config(str(folder)),
        native=resolver,  # type: ignore[arg-type]
        dns=resolver,  # type: ignore[arg-type]
    )
    server = make_server(prepared)
    front = Front(server, runtime)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    loop.add_reader(listener, lambda: front.channels.accept(listener.accept()[0]))
    try:
        yield Instance(listener.getsockname()[1], mail, runtime, server, front)
    finally:
        loop.remove_reader(listener)
        listener.close()
        for one in serving:
            one.close()
        assert isinstance(server.rewrite, RewriteClient)
        assert isinstance(server.cleanup, CleanupClient)
        assert isinstance(server.rewrite._pool, ServicePool)
        server.rewrite._pool.close()
        server.cleanup._pool.close()
        for task in list(runtime.tasks):
            task.cancel()
        await asyncio.gather(*runtime.tasks, return_exceptions=True)
        for connection in connections:
            connection.close()
        await asyncio.sleep(0)
