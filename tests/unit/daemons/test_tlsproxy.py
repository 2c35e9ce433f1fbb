"""tlsproxy(8), and its client, with Python's own TLS at the other end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

import pytest

from daemons.tlsproxy import of_proxy
from daemons.tlsproxy.proxy import Proxy
from libmail.clients.tlsproxy import TlsProxyClient, read_session
from libmail.config import Config, open_config
from libmail.handshakes.server import HandshakeParams, Handshakes, open_handshakes
from libmail.handshakes.told import heard, told
from libmail.ipc.codec import WireError
from libmail.ipc.messages import CODEC, FlushReply, TlsProxyRequest, TlsSession
from libmail.log import LOG
from libmail.lookup.facts import Tls
from libmail.net.unix_stream import UnixStream
from libmail.service.connection import Connection, ConnectionLost
from libmail.service.pool import ServicePool, ServiceUnavailable
from libmail.service.skeleton import Runtime
from libmail.tables.table import TableOptions
from libmail.tls.facts import Agreed, Algorithm, Trust
from libmail.tls.levels import Level
from libmail.tls.params import ServerTlsParams
from tests.certificates import Authority
from tests.unit.waiting import PATIENCE, until

NAME = "[192.0.2.1]:99"
MUCH = bytes(range(256)) * 4096
Talk = Callable[["World"], Awaitable[None]]


def configured(top: Path, *lines: str) -> Config:
    (top / "main.cf").write_text("\n".join(["compatibility_level = 3.6", *lines, ""]))
    (top / "master.cf").write_text("tlsproxy unix - - n - 0 tlsproxy\n")
    return open_config(str(top))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def opened(config: Config, level: Level = Level.MAY) -> Handshakes:
    return open_handshakes(
        of_proxy(config, ServerTlsParams),
        of_proxy(config, HandshakeParams),
        config,
        level,
        TableOptions.of(config),
        "tlsproxy",
        loglevel_maps="postscreen_tls_loglevel_maps",
    )


@pytest.fixture
def handshakes(short_tmp: Path, authority: Authority) -> Handshakes:
    chain = authority.issue("mail.test").chain
    config = configured(short_tmp, f"smtpd_tls_chain_files = {chain}", "smtpd_tls_loglevel = 1")
    return opened(config)


class World:
    """tlsproxy at the socket "tlsproxy". over: sessions that have ended."""

    def __init__(self, handshakes: Handshakes | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        self.tasks: set[asyncio.Task[object]] = set()
        self.over = 0
        self.errors: list[Exception] = []
        self.logged: list[str] = []
        LOG.open(lambda severity, head, text: self.logged.append(text), "postfix/tlsproxy")
        self._proxy = Proxy(handshakes, cast(Runtime, self))

    def spawn(self, coroutine: object) -> None:
        self.tasks.add(self.loop.create_task(coroutine))  # type: ignore[arg-type]

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._proxy.serve(connection)
        except (ConnectionLost, WireError) as error:
            self.errors.append(error)
        connection.close()
        self.over += 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("tlsproxy")
            listener.listen()
            listener.setblocking(False)
            self.loop.add_reader(listener.fileno(), self._accept, listener)
            yield
            self.loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        connection = Connection("tlsproxy", serving=True)
        UnixStream(sock, connection, descriptors=True)
        self.spawn(self._serve(connection))

    async def hand_over(self, timeout: float = PATIENCE) -> tuple[socket.socket, Streams]:
        """A client's socket, and the streams of postscreen, once the client is handed over.

        They begin with `session`.
        """
        client, accepted = socket.socketpair()
        client.setblocking(False)
        with accepted:
            clear = await TlsProxyClient("tlsproxy").begin(accepted, NAME, timeout)
        clear.setblocking(False)
        return client, await asyncio.open_unix_connection(sock=clear)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def session(hear: asyncio.StreamReader) -> TlsSession:
    """What tlsproxy says first."""
    head = await hear.readexactly(4)
    found, octets = read_session(head + await hear.readexactly(int.from_bytes(head, "big")))
    assert octets == 4 + int.from_bytes(head, "big")
    return found


async def shaken(client: socket.socket) -> Streams:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_unix_connection(sock=client, ssl=context, server_hostname="x")


@pytest.fixture
def run(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch, handshakes: Handshakes
) -> Callable[..., None]:
    monkeypatch.chdir(short_tmp)

    def play(talk: Talk, *, possible: bool = True) -> None:
        async def main() -> None:
            world = World(handshakes if possible else None)
            with world.listening():
                await asyncio.wait_for(talk(world), PATIENCE)
                for task in world.tasks:
                    task.cancel()
                await asyncio.gather(*world.tasks, return_exceptions=True)
                await asyncio.sleep(0)

        asyncio.run(main())

    return play


def test_both_ends_hear_each_other(run: Callable[..., None]) -> None:
    async def talk(world: World) -> None:
        client, (hear, say) = await world.hand_over()
        reader, writer = await shaken(client)
        writer.write(b"EHLO x\r\n")
        agreed = heard(await session(hear)).agreed
        protocol, cipher = writer.get_extra_info("cipher")[1::-1]
        assert (agreed.protocol, agreed.cipher) == (protocol, cipher)
        assert await hear.readline() == b"EHLO x\r\n"
        say.write(b"250 x\r\n")
        assert await reader.readline() == b"250 x\r\n"
        writer.write(MUCH)
        assert await hear.readexactly(len(MUCH)) == MUCH
        say.write(b"221 Bye\r\n")
        say.close()
        assert await reader.read() == b"221 Bye\r\n"
        writer.close()
        await until(lambda: world.over == 1)
        connect, established, disconnect = world.logged
        assert (connect, disconnect) == (f"CONNECT from {NAME}", f"DISCONNECT {NAME}")
        assert established.startswith(f"Anonymous TLS connection established from {NAME}: TLSv1")

    run(talk)


def test_a_client_is_not_read_from_while_nobody_listens(run: Callable[..., None]) -> None:
    async def talk(world: World) -> None:
        client, (hear, say) = await world.hand_over()
        _, writer = await shaken(client)
        cast(asyncio.Transport, say.transport).pause_reading()
        for _ in range(8):
            writer.write(MUCH)
        drained = world.loop.create_task(writer.drain())
        held: list[int] = []

        def settled() -> bool:
            held.append(writer.transport.get_write_buffer_size())
            return len(set(held[-20:])) == 1 < len(held[-20:])

        await until(settled)
        assert held[-1] > 4 * len(MUCH)
        assert not drained.done()
        cast(asyncio.Transport, say.transport).resume_reading()
        await session(hear)
        assert await hear.readexactly(8 * len(MUCH)) == 8 * MUCH
        await drained
        writer.transport.abort()
        assert await hear.read() == b""
        say.close()
        await until(lambda: world.over == 1)

    run(talk)


@pytest.mark.parametrize("said", [b"EHLO x\r\n", b"", b"\x16\x03\x01"])
def test_no_handshake(run: Callable[..., None], said: bytes) -> None:
    async def talk(world: World) -> None:
        client, (hear, say) = await world.hand_over()
        with client:
            await world.loop.sock_sendall(client, said)
            if said[:1] != b"E":
                client.shutdown(socket.SHUT_WR)
            assert await hear.read() == b""
        say.close()
        await until(lambda: world.over == 1)
        assert world.logged[0] == f"CONNECT from {NAME}"
        assert world.logged[-2:] == [
            f"TLS handshake failed for service=smtpd peer={NAME}",
            f"DISCONNECT {NAME}",
        ]

    run(talk)


def test_a_client_that_never_begins(run: Callable[..., None]) -> None:
    async def talk(world: World) -> None:
        client, (hear, say) = await world.hand_over(0.05)
        with client:
            assert await hear.read() == b""
        say.close()
        await until(lambda: world.over == 1)
        assert world.logged[1].startswith("TLS handshake failed")

    run(talk)


def test_not_available(run: Callable[..., None]) -> None:
    async def talk(world: World) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with pytest.raises(ServiceUnavailable, match="TLS is not available"):
                await TlsProxyClient("tlsproxy").begin(ours, NAME, PATIENCE)
            with pytest.raises(ServiceUnavailable, match="connect to nowhere"):
                await TlsProxyClient("nowhere").begin(ours, NAME, PATIENCE)
        assert world.logged == ["warning: TLS is not available: see the warnings before"]

    run(talk, possible=False)


def test_no_sockets(run: Callable[..., None]) -> None:
    async def talk(world: World) -> None:
        pool = ServicePool("tlsproxy", wait=False)
        with open("main.cf", "rb") as file:
            for descriptors in ([], [file.fileno()], [file.fileno(), file.fileno()]):
                connection = await pool.connect()
                connection.send_with(TlsProxyRequest(NAME, 1.0), descriptors)
                with pytest.raises(ConnectionLost):
                    await connection.receive()
                pool.discard(connection)
        assert [type(error) for error in world.errors] == [WireError] * 3
        assert not world.logged

    run(talk)


def test_whose_settings_count(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        "smtpd_tls_ciphers = high",
        "smtpd_tls_protocols = >=TLSv1.2",
        "postscreen_tls_ciphers = low",
        "postscreen_tls_loglevel = 2",
        "tlsproxy_tls_loglevel = 3",
    )
    params = of_proxy(config, ServerTlsParams)
    assert params.smtpd_tls_ciphers == "low"
    assert params.smtpd_tls_protocols == ">=TLSv1.2"
    assert of_proxy(config, HandshakeParams).smtpd_tls_loglevel == "3"


SECP: Final = Algorithm("x25519")
RSA: Final = Algorithm("RSA-PSS", "2048 bits", "SHA256")


@pytest.mark.parametrize(
    "tls",
    [
        Tls(Agreed("TLSv1.2", "AES256", 256, 256, False), Trust.ANONYMOUS),
        Tls(Agreed("TLSv1.3", "AES", 128, 256, True, SECP, RSA, RSA), Trust.TRUSTED, "a", "b", "c"),
    ],
    ids=["anonymous", "known"],
)
def test_facts_are_told(tls: Tls) -> None:
    message = CODEC.encode(told(tls, "terms"))
    session, octets = read_session(message + b"EHLO x\r\n")
    assert octets == len(message)
    assert (heard(session), session.terms) == (tls, "terms")


def test_facts_that_are_none() -> None:
    tls = Tls(Agreed("TLSv1.2", "AES256", 256, 256, False), Trust.ANONYMOUS)
    message = told(tls, "")
    with pytest.raises(WireError, match="no degree of trust: 'Much'"):
        heard(message._replace(trust="Much"))
    for data in (b"", CODEC.encode(message)[:-1], CODEC.encode(FlushReply("")), b"EHLO x\r\n"):
        with pytest.raises(WireError):
            read_session(data)


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("smtpd_tls_session_cache_timeout = 5s", True),
        ("smtpd_tls_ask_ccert = yes", False),
        ("smtpd_tls_fingerprint_digest = md5", False),
        ("smtpd_tls_protocols = >=TLSv1.3", False),
        ("tls_high_cipherlist = ECDHE+AESGCM", False),
    ],
)
def test_terms(handshakes: Handshakes, short_tmp: Path, setting: str, same: bool) -> None:
    settings = [(short_tmp / "main.cf").read_text(), setting]
    there = opened(configured(short_tmp, *settings))
    assert (there.terms == handshakes.terms) == same
    assert opened(configured(short_tmp, *settings), Level.ENCRYPT).terms != there.terms
