"""A client's channel that TLS begins on, with octets that come in pieces of any size."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Coroutine
from typing import Protocol, cast

import cffi
import pytest

from libmail.net.channel import ClientChannel, ClientGone, RequestLimit
from libmail.net.poller import Poller
from libmail.tls.channel import first_record, secured
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.errors import TlsClosed, TlsFailed
from libmail.tls.layer import TlsLayer
from libmail.tls.library import FFI
from libmail.tls.pem import load_chains
from libmail.tls.settings import Protocols
from tests.certificates import Authority
from tests.unit.libmail.tls.pair import ANY, CIPHERS, GROUPS, TLS_1_2, TLS_1_3
from tests.unit.waiting import PATIENCE, until


class Renegotiation(Protocol):
    """Of the library, what the engine does not use."""

    def SSL_clear_options(self, ssl: object, options: int) -> int: ...  # noqa: N802
    def SSL_renegotiate(self, ssl: object) -> int: ...  # noqa: N802
    def SSL_do_handshake(self, ssl: object) -> int: ...  # noqa: N802


_EXTRA = cffi.FFI()
_EXTRA.cdef(
    "uint64_t SSL_clear_options(void *ssl, uint64_t options); int SSL_renegotiate(void *ssl);"
    "int SSL_do_handshake(void *ssl);"
)
_LIBRARY = cast(Renegotiation, _EXTRA.dlopen("libssl.so.3"))


def asks_to_renegotiate(client: Connection) -> bytes:
    """What a client sends that wants another handshake within TLS 1.2."""
    ssl = _EXTRA.cast("void *", int(FFI.cast("uintptr_t", client._ssl)))
    _LIBRARY.SSL_clear_options(ssl, 1 << 30)
    assert _LIBRARY.SSL_renegotiate(ssl) == 1
    _LIBRARY.SSL_do_handshake(ssl)
    return client.output()


class Network:
    """A channel, and a client at the other end of its socket that answers at once.

    size: octets that the server gets at a time. cut: how many it gets at all; then the client
    closes the connection or, if it is `silent`, is waited for in vain. sent: of them. octets: that
    the client got. heard: what was in them.
    """

    def __init__(self, client: Connection, size: int = 1 << 20, cut: int = 1 << 30) -> None:
        self.client, self.size, self.cut = client, size, cut
        self.pending = b""
        self.octets = self.heard = b""
        self.sent = 0
        self.shaken = self.silent = self.closed = False
        self.over: list[ClientChannel] = []
        self.socket, self.server = socket.socketpair()
        self.socket.setblocking(False)
        self.loop = asyncio.get_running_loop()
        self.channel = ClientChannel(self.server, Poller(self.loop), 600.0, self.over.append)
        self._more = asyncio.Event()
        self._tasks = [self.loop.create_task(one) for one in (self._speak(), self._hear())]

    def advance(self) -> None:
        """The client says what it has to."""
        if not self.shaken:
            self.shaken = self.client.handshake() is Step.DONE
        self.bring(self.client.output())

    def say(self, data: bytes) -> None:
        self.client.write(data)
        self.bring(self.client.output())

    def bring(self, data: bytes) -> None:
        """Octets of the network."""
        self.pending += data
        self._more.set()

    async def _speak(self) -> None:
        while self.cut:
            self._more.clear()
            while data := self.pending[: min(self.size, self.cut)]:
                count = self.socket.send(data)
                self.pending = self.pending[count:]
                self.cut -= count
                self.sent += count
                while self.unread():  # noqa: ASYNC110 (the socket tells nobody)
                    await asyncio.sleep(0)
            if self.cut:
                await self._more.wait()
        while self.silent:
            self.channel.check_deadline(float("inf"))
            await asyncio.sleep(0)
        self.socket.shutdown(socket.SHUT_WR)

    def unread(self) -> int:
        """Octets that the server has not read; none of a connection that is closed."""
        if self.server.fileno() < 0:
            return 0
        return int(struct.unpack("i", fcntl.ioctl(self.server, termios.FIONREAD, bytes(4)))[0])

    async def _hear(self) -> None:
        while data := await self.loop.sock_recv(self.socket, 1 << 16):
            self.octets += data
            try:
                self.client.receive(data)
                self.advance()
                if self.shaken:
                    self.heard += self.client.read()
            except (TlsClosed, TlsFailed):
                continue
        self.closed = True

    async def all_read(self) -> None:
        """Wait until the server has read what the client has to say."""
        await until(lambda: not self.pending and not self.unread())

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.channel.session_over()
        self.socket.close()


async def nothing_to_look_up(connection: Connection) -> None:
    raise AssertionError(connection.hello)


class Ends:
    def __init__(self, authority: Authority) -> None:
        chain = authority.issue("mail.example.test", kind="ec").chain
        self.chains = load_chains([str(chain)])

    def server(self, protocols: Protocols = ANY, *, names: bool = False) -> Connection:
        settings = ServerSettings(
            ciphers=CIPHERS, protocols=protocols, groups=GROUPS, chains=self.chains, names=names
        )
        return accept(ServerContext(settings))

    def client(self, protocols: Protocols = ANY, name: str = "") -> Connection:
        context = ClientContext(ClientSettings(groups=GROUPS))
        return connect(context, ClientSpec(ciphers=CIPHERS, protocols=protocols, server_name=name))


@pytest.fixture(scope="module")
def ends(authority: Authority) -> Ends:
    return Ends(authority)


def run(main: Coroutine[object, object, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await main

    asyncio.run(limited())


async def shaken(network: Network, server: Connection) -> ClientChannel:
    network.advance()
    await shaken_as_it_is(network, server)
    await until(lambda: network.shaken)
    return network.channel


async def shaken_as_it_is(network: Network, server: Connection) -> TlsLayer:
    begun = await first_record(network.channel)
    return await secured(network.channel, server, nothing_to_look_up, begun)


@pytest.mark.parametrize("protocols", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("size", [1, 2, 5, 37, 1000, 1 << 20])
def test_octets_come_through_in_any_pieces(ends: Ends, protocols: Protocols, size: int) -> None:
    async def main() -> None:
        network = Network(ends.client(protocols), size)
        channel = await shaken(network, ends.server(protocols))
        said = b"".join(b"line %d\r\n" % number for number in range(300 if size > 2 else 9))
        network.say(said[:40])
        network.say(said[40:])
        got = b""
        while len(got) < len(said):
            got += await channel.read(idle=False)
        assert got == said
        channel.write(b"250 Ok\r\n")
        channel.write(b"x" * 100_000)
        channel.close()
        await until(lambda: network.closed)
        assert network.heard == b"250 Ok\r\n" + b"x" * 100_000
        await network.end()

    run(main())


def test_others_have_their_turn_however_small_the_records_are(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1 << 14)
        channel = await shaken(network, ends.server())
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        for _ in range(10_000):
            network.say(b"x")
        octets, got = len(network.pending), 0
        task = asyncio.create_task(others())
        while got < 10_000:
            got += len(await channel.read(idle=False))
        assert turns >= octets >> 16
        task.cancel()
        await network.end()

    run(main())


def test_what_comes_with_the_end_of_the_handshake_is_read(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client(TLS_1_3))
        advance = network.advance

        def eager() -> None:
            before = network.shaken
            output, network.pending = network.pending, b""
            if not before:
                network.shaken = network.client.handshake() is Step.DONE
            if network.shaken and not before:
                network.client.write(b"EHLO x\r\n")
            network.bring(output + network.client.output())

        network.advance = eager  # type: ignore[method-assign]
        channel = await shaken(network, ends.server(TLS_1_3))
        network.advance = advance  # type: ignore[method-assign]
        assert not network.unread()
        assert channel.has_sent()
        assert await channel.read(idle=True) == b"EHLO x\r\n"
        assert not channel.has_sent()
        await network.end()

    run(main())


def test_the_beginning_may_have_been_read_already(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client())
        network.client.handshake()
        await secured(network.channel, ends.server(), nothing_to_look_up, network.client.output())
        network.say(b"x")
        assert await network.channel.read(idle=True) == b"x"
        await network.end()

    run(main())


@pytest.mark.parametrize("protocols", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def test_what_came_in_the_clear_is_never_read_within_tls(ends: Ends, protocols: Protocols) -> None:
    """RFC 3207 §6: neither what was there before, and not forgotten, nor what comes later."""

    async def main() -> None:
        for late in (False, True):
            network = Network(ends.client(protocols))
            layer = await secured_by_hand(network, ends.server(protocols))
            if late:
                network.channel.enter(layer)
            network.bring(b"RSET\r\nMAIL FROM:<injected@example.test>\r\n")
            network.say(b"NOOP\r\n")
            await network.all_read()
            if not late:
                await until(lambda: bool(network.channel._data))  # noqa: B023
                network.channel.enter(layer)
            with pytest.raises(ClientGone):
                await network.channel.read(idle=True)
            await network.end()

    run(main())


async def secured_by_hand(network: Network, server: Connection) -> TlsLayer:
    """The handshake, after which nothing is encrypted before the channel enters the layer."""
    channel = network.channel
    network.advance()
    while server.handshake() is not Step.DONE:
        channel.write(server.output())
        server.receive(await channel.read(idle=True))
    channel.write(server.output())
    await until(lambda: network.shaken)
    return TlsLayer(server)


def test_what_was_discarded_before_the_handshake_is_gone(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client())
        network.bring(b"RSET\r\n")
        await network.all_read()
        await until(lambda: bool(network.channel._data))
        network.channel.discard_input()
        channel = await shaken(network, ends.server())
        network.say(b"NOOP\r\n")
        assert await channel.read(idle=True) == b"NOOP\r\n"
        await network.end()

    run(main())


@pytest.mark.parametrize("whole", [False, True], ids=["each wait", "whole request"])
def test_part_of_a_record_is_a_sign_of_life(ends: Ends, *, whole: bool) -> None:
    """But it wakes no session, and gives no more time for a request that is limited as a whole."""

    async def main() -> None:
        network = Network(ends.client())
        channel = await shaken(network, ends.server())
        if whole:
            channel.request_limit = RequestLimit(600.0, 1)
        reading = asyncio.create_task(channel.read(idle=True))
        await until(lambda: channel._wakeup.waiting)
        deadline = channel.deadline = channel.deadline - 100
        network.client.write(b"NOOP\r\n")
        record = network.client.output()
        network.bring(record[:-1])
        await network.all_read()
        await asyncio.sleep(0)
        assert not reading.done()
        assert (channel.deadline > deadline) is not whole
        network.bring(record[-1:])
        assert await reading == b"NOOP\r\n"
        await network.end()

    run(main())


def test_a_client_that_wants_to_renegotiate_is_told_at_once(ends: Ends) -> None:
    """That it may not: it would not say anything before it knows."""

    async def main() -> None:
        network = Network(ends.client(TLS_1_2))
        channel = await shaken(network, ends.server(TLS_1_2))
        reading = asyncio.create_task(channel.read(idle=True))
        before = len(network.octets)
        network.bring(asks_to_renegotiate(network.client))
        await until(lambda: len(network.octets) > before)
        assert network.octets[before : before + 1] == b"\x15"  # an alert
        assert not reading.done()
        reading.cancel()
        await network.end()

    run(main())


def test_a_client_that_takes_no_replies_is_not_listened_to(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client())
        channel = await shaken(network, ends.server())
        hearing = network._tasks[1]
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        channel.write(b"x" * (1 << 20))
        network.say(b"NOOP\r\n")
        reading = asyncio.create_task(channel.read(idle=True))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reading.done()
        hearing = asyncio.create_task(network._hear())
        assert await reading == b"NOOP\r\n"
        await until(lambda: len(network.heard) == 1 << 20)
        hearing.cancel()
        await network.end()

    run(main())


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_library_waits_for_a_whole_record(ends: Ends, size: int) -> None:
    async def main() -> None:
        network = Network(ends.client(), size)
        network.advance()
        hello = network.pending
        assert await first_record(network.channel) == hello
        await network.end()
        network = Network(ends.client(), size, len(hello) - 1)
        network.advance()
        with pytest.raises(TlsFailed, match="lost connection"):
            await first_record(network.channel)
        await network.end()

    run(main())


@pytest.mark.parametrize(
    ("data", "length"),
    [(b"\x80\x2e\x01", 1), (b"EHLO", 1), (b"\x16\x03\x01\xff\xff..", 5), (b"\x16\x03\x01\0\0", 5)],
)
def test_what_is_no_record_is_for_the_library(ends: Ends, data: bytes, length: int) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1)
        network.bring(data)
        found = await first_record(network.channel)
        assert data.startswith(found)
        assert len(found) >= length
        await network.end()

    run(main())


@pytest.mark.parametrize(
    ("silent", "reason"), [(False, "lost connection"), (True, "Connection timed out")]
)
def test_a_client_that_breaks_off_anywhere(ends: Ends, *, silent: bool, reason: str) -> None:
    async def main() -> None:
        whole = Network(ends.client())
        await shaken(whole, ends.server())
        length = whole.sent
        await whole.end()
        for cut in (0, 1, 5, 6, 100, length - 60, length - 1):
            network = Network(ends.client(), 50, cut)
            network.silent = silent
            with pytest.raises(TlsFailed) as caught:
                await shaken(network, ends.server())
            assert caught.value.reason == reason
            assert caught.value.lost
            await network.end()

    run(main())


@pytest.mark.parametrize(
    "data", [b"RSET\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\0" * 9]
)
def test_what_is_no_handshake(ends: Ends, data: bytes) -> None:
    async def main() -> None:
        network = Network(ends.client(), 3)
        network.bring(data)
        with pytest.raises(TlsFailed):
            await shaken_as_it_is(network, ends.server())
        network.channel.close()
        await until(lambda: network.closed)
        assert network.octets[:1] in {b"", b"\x15"}
        await network.end()

    run(main())


def test_names_are_looked_up_while_others_go_on(ends: Ends) -> None:
    async def main() -> None:
        turns = 0

        async def answer(connection: Connection) -> None:
            nonlocal turns
            for turns in range(3):  # noqa: B007
                await asyncio.sleep(0)
            assert connection.hello is not None
            assert connection.hello.name == "other.example.test"
            connection.answer(ends.chains)

        network = Network(ends.client(name="other.example.test"))
        network.advance()
        await secured(network.channel, ends.server(names=True), answer)
        assert turns == 2
        await network.end()

    run(main())


def finished(client: Connection) -> None:
    client.shutdown()


def damaged(client: Connection) -> None:
    client.write(b"x")
    client.output()  # one record is lost
    client.write(b"y")


@pytest.mark.parametrize("together", [False, True], ids=["later", "with the last command"])
@pytest.mark.parametrize("last", [finished, damaged])
def test_the_end(ends: Ends, last: Callable[[Connection], None], *, together: bool) -> None:
    """Of the session: the connection itself stays open."""

    async def main() -> None:
        network = Network(ends.client())
        channel = await shaken(network, ends.server())
        network.client.write(b"QUIT\r\n")
        said = network.client.output()
        last(network.client)
        network.bring(said + network.client.output() if together else said)
        assert await channel.read(idle=True) == b"QUIT\r\n"
        if not together:
            network.bring(network.client.output())
        with pytest.raises(ClientGone):
            await channel.read(idle=True)
        channel.write(b"nobody reads this\r\n")
        channel.close()
        channel.close()
        channel.write(b"nor this\r\n")
        await until(lambda: network.closed)
        assert b"this" not in network.octets
        await network.end()
        assert network.over == [channel]

    run(main())


def test_the_peer_is_told_of_the_end(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client())
        channel = await shaken(network, ends.server())
        channel.write(b"221 Bye\r\n")
        channel.close()
        await until(lambda: network.closed)
        assert network.heard == b"221 Bye\r\n"
        with pytest.raises(TlsClosed):
            network.client.read()
        await network.end()

    run(main())
