"""A channel inside of TLS, over one that brings octets in pieces of any size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest

from libmail.net.channel import ClientGone, ClientSilent
from libmail.tls.channel import TlsChannel, first_record, secured
from libmail.tls.client_spec import ClientSpec
from libmail.tls.connection import Connection, Step, accept, connect
from libmail.tls.context import ClientContext, ClientSettings, ServerContext, ServerSettings
from libmail.tls.errors import TlsFailed
from libmail.tls.pem import load_chains
from libmail.tls.settings import Protocols
from tests.certificates import Authority
from tests.unit.libmail.tls.pair import ANY, CIPHERS, GROUPS, TLS_1_2, TLS_1_3

T = TypeVar("T")


class Network:
    """The channel below, with a client at its end that answers at once.

    size: octets that the server gets at a time. cut: how many it gets at all; then comes `end`.
    """

    def __init__(self, client: Connection, size: int, cut: int = 1 << 30) -> None:
        self.client = client
        self.size = size
        self.cut = cut
        self.end: Exception = ClientGone()
        self.pending = b""
        self.shaken = False
        self.closed = False
        self.reads = 0
        self.turns = 0  # of others

    def advance(self) -> None:
        if not self.shaken:
            self.shaken = self.client.handshake() is Step.DONE
        self.pending += self.client.output()

    def say(self, data: bytes) -> None:
        self.client.write(data)
        self.pending += self.client.output()

    def write(self, data: bytes) -> None:
        self.client.receive(data)
        self.advance()

    async def read(self, *, idle: bool) -> bytes:
        del idle
        self.reads += 1
        await asyncio.sleep(0)
        data = self.pending[: min(self.size, self.cut)]
        if not data:
            raise self.end
        self.pending = self.pending[len(data) :]
        self.cut -= len(data)
        return data

    async def give_way(self) -> None:
        self.turns += 1
        await asyncio.sleep(0)

    def has_sent(self) -> bool:
        return bool(self.pending)

    def discard_input(self) -> None:
        self.pending = b""

    def close(self) -> None:
        self.closed = True


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


def run(main: Coroutine[object, object, T]) -> T:
    return asyncio.run(main)


async def shaken(network: Network, server: Connection) -> TlsChannel:
    network.advance()
    return await shaken_as_it_is(network, server)


async def shaken_as_it_is(network: Network, server: Connection) -> TlsChannel:
    begun = await first_record(network)
    return await secured(network, server, nothing_to_look_up, begun)


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
        assert network.client.read() == b"250 Ok\r\n" + b"x" * 100_000
        channel.close()
        assert network.closed

    run(main())


def test_others_have_their_turn_however_small_the_records_are(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1 << 14)
        channel = await shaken(network, ends.server())
        for _ in range(10_000):
            network.say(b"x")
        octets = len(network.pending)
        got = 0
        while got < 10_000:
            got += len(await channel.read(idle=False))
        assert network.turns >= octets >> 16

    run(main())


def test_what_comes_with_the_end_of_the_handshake_is_read(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client(TLS_1_3), 1 << 20)
        write = network.write

        def eager(data: bytes) -> None:
            before = network.shaken
            write(data)
            if network.shaken and not before:
                network.say(b"EHLO x\r\n")

        network.write = eager  # type: ignore[method-assign]
        channel = await shaken(network, ends.server(TLS_1_3))
        assert not network.has_sent()
        assert channel.has_sent()
        assert await channel.read(idle=True) == b"EHLO x\r\n"
        assert not channel.has_sent()

    run(main())


def test_the_beginning_may_have_been_read_already(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1 << 20)
        network.advance()
        hello, network.pending = network.pending, b""
        channel = await secured(network, ends.server(), nothing_to_look_up, hello)
        network.say(b"x")
        assert await channel.read(idle=True) == b"x"

    run(main())


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_library_waits_for_a_whole_record(ends: Ends, size: int) -> None:
    async def main() -> None:
        network = Network(ends.client(), size)
        network.advance()
        hello = network.pending
        begun = await first_record(network)
        assert begun == hello[: len(begun)]
        assert len(begun) == len(hello)
        network = Network(ends.client(), size, len(hello) - 1)
        network.advance()
        with pytest.raises(TlsFailed, match="lost connection"):
            await first_record(network)

    run(main())


@pytest.mark.parametrize(
    ("data", "length"),
    [(b"\x80\x2e\x01", 1), (b"EHLO", 1), (b"\x16\x03\x01\xff\xff..", 5), (b"\x16\x03\x01\0\0", 5)],
)
def test_what_is_no_record_is_for_the_library(ends: Ends, data: bytes, length: int) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1)
        network.pending = data
        assert await first_record(network) == data[:length]

    run(main())


def length_of_handshake(ends: Ends) -> int:
    async def main() -> int:
        network = Network(ends.client(), 1)
        await shaken(network, ends.server())
        return network.reads

    return run(main())


@pytest.mark.parametrize(
    ("end", "reason"), [(ClientGone(), "lost connection"), (ClientSilent(), "Connection timed out")]
)
def test_a_client_that_breaks_off_anywhere(ends: Ends, end: Exception, reason: str) -> None:
    async def main() -> None:
        for cut in (0, 1, 5, 6, 100, length_of - 60, length_of - 1):
            network = Network(ends.client(), 50, cut)
            network.end = end
            with pytest.raises(TlsFailed) as caught:
                await shaken(network, ends.server())
            assert caught.value.reason == reason
            assert caught.value.lost

    length_of = length_of_handshake(ends)
    run(main())


@pytest.mark.parametrize(
    "data", [b"RSET\r\n", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\0" * 9]
)
def test_what_is_no_handshake(ends: Ends, data: bytes) -> None:
    async def main() -> None:
        network = Network(ends.client(), 3)
        network.pending = data
        alerts: list[bytes] = []
        network.write = alerts.append  # type: ignore[assignment, method-assign]
        with pytest.raises(TlsFailed):
            await shaken_as_it_is(network, ends.server())
        assert all(alert[:1] == b"\x15" for alert in alerts)

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

        network = Network(ends.client(name="other.example.test"), 1 << 20)
        network.advance()
        await secured(network, ends.server(names=True), answer)
        assert turns == 2

    run(main())


def finished(client: Connection) -> None:
    client.shutdown()


def damaged(client: Connection) -> None:
    client.write(b"x")
    client.output()  # one record is lost
    client.write(b"y")


@pytest.mark.parametrize("last", [finished, damaged])
def test_the_end(ends: Ends, last: Callable[[Connection], None]) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1 << 20)
        channel = await shaken(network, ends.server())
        network.say(b"QUIT\r\n")
        assert await channel.read(idle=True) == b"QUIT\r\n"
        last(network.client)
        network.pending += network.client.output()
        with pytest.raises(ClientGone):
            await channel.read(idle=True)
        channel.write(b"nobody reads this\r\n")
        channel.close()
        channel.close()
        channel.write(b"nor this\r\n")
        assert network.closed

    run(main())


def test_the_peer_is_told_of_the_end(ends: Ends) -> None:
    async def main() -> None:
        network = Network(ends.client(), 1 << 20)
        channel = await shaken(network, ends.server())
        channel.write(b"221 Bye\r\n")
        channel.close()
        assert network.client.read() == b"221 Bye\r\n"
        with pytest.raises(Exception, match="closed the TLS session"):
            network.client.read()

    run(main())
