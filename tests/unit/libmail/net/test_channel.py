"""A client's connection: input, slow clients, ends of either side, and who is told of the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from libmail.net.channel import ClientChannel, ClientGone, ClientSilent, ServerStopping
from libmail.net.ends import Ends
from libmail.net.poller import Poller
from tests.unit.waiting import until

MUCH = b"x" * (1 << 20)  # more than a socket takes


class Pair:
    """A channel, and the client's socket."""

    def __init__(self, limit: float = 600.0, *, ends: Ends | None = None) -> None:
        self.client, server = socket.socketpair()
        self.client.setblocking(False)
        self.ended: list[ClientChannel] = []
        self.loop = asyncio.get_running_loop()
        poller = Poller(self.loop)
        self.channel = ClientChannel(server, poller, limit, self.ended.append, ends)

    def reading(self, *, idle: bool = True) -> asyncio.Task[bytes]:
        return self.loop.create_task(self.channel.read(idle=idle))

    async def received(self, size: int) -> int:
        """Receive that much, at least."""
        count = 0
        while count < size:
            count += len(await self.loop.sock_recv(self.client, 1 << 16))
        return count

    async def at_end(self) -> bool:
        return not await self.loop.sock_recv(self.client, 1)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            await test()

    asyncio.run(main())


def test_input_in_one_piece_however_it_came() -> None:
    async def test() -> None:
        pair = Pair()
        reading = pair.reading()
        await asyncio.sleep(0)
        pair.client.send(b"EHLO")
        assert await reading == b"EHLO"
        for part in (b" a", b"b", b"c\r\n"):
            pair.client.send(part)
            await until(lambda: not pair.channel.has_sent() or bool(pair.channel._data))
        got = b""
        while len(got) < 6:
            got += await pair.channel.read(idle=True)
        assert got == b" abc\r\n"
        pair.channel.session_over()
        assert pair.ended == [pair.channel]
        assert await pair.at_end()
        pair.client.close()

    run(test)


def test_the_ends_of_a_unix_socket_are_this_host() -> None:
    async def test() -> None:
        pair = Pair()
        assert pair.channel.ends == Ends("127.0.0.1", "0", "127.0.0.1", "0")
        assert not pair.channel.passed
        pair.channel.session_over()
        told = Ends("192.0.2.1", "1", "192.0.2.2", "25")
        passed = Pair(ends=told)
        assert (passed.channel.ends, passed.channel.passed) == (told, True)
        passed.channel.session_over()
        for one in (pair, passed):
            one.client.close()

    run(test)


def test_nothing_more_is_read_for_a_session_that_is_busy() -> None:
    async def test() -> None:
        pair = Pair()
        sending = pair.loop.create_task(pair.loop.sock_sendall(pair.client, MUCH))
        await until(lambda: pair.channel._paused)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not sending.done()
        got = 0
        while got < len(MUCH):
            got += len(await pair.channel.read(idle=False))
        await sending
        pair.channel.session_over()
        pair.client.close()

    run(test)


def test_a_client_that_takes_no_replies_is_not_listened_to() -> None:
    async def test() -> None:
        pair = Pair()
        pair.channel.write(MUCH)
        pair.client.send(b"NOOP\r\n")
        reading = pair.reading()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reading.done()
        assert await pair.received(len(MUCH)) == len(MUCH)
        assert await reading == b"NOOP\r\n"
        pair.channel.session_over()
        pair.client.close()

    run(test)


def test_what_was_written_is_sent_before_the_end() -> None:
    async def test() -> None:
        pair = Pair()
        pair.channel.write(MUCH)
        pair.channel.write(b"221 Bye\r\n")
        pair.channel.session_over()
        assert pair.ended == []
        assert await pair.received(len(MUCH) + 9) == len(MUCH) + 9
        assert await pair.at_end()
        await until(lambda: pair.ended == [pair.channel])
        pair.client.close()

    run(test)


def test_a_client_that_has_said_all_may_listen() -> None:
    async def test() -> None:
        pair = Pair()
        pair.client.send(b"QUIT\r\n")
        pair.client.shutdown(socket.SHUT_WR)
        assert await pair.channel.read(idle=True) == b"QUIT\r\n"
        with pytest.raises(ClientGone):
            await pair.channel.read(idle=True)
        pair.channel.write(b"221 Bye\r\n")
        assert await pair.loop.sock_recv(pair.client, 100) == b"221 Bye\r\n"
        pair.channel.session_over()
        pair.client.close()

    run(test)


def test_a_client_that_has_gone() -> None:
    async def test() -> None:
        pair = Pair()
        reading = pair.reading()
        await asyncio.sleep(0)
        pair.client.close()
        with pytest.raises(ClientGone):
            await reading
        pair.channel.write(b"250 Ok\r\n")
        pair.channel.write(b"250 Ok\r\n")
        pair.channel.session_over()
        assert pair.ended == [pair.channel]

    run(test)


@pytest.mark.parametrize("slow", [False, True])
def test_a_silent_client(slow: bool) -> None:
    async def test() -> None:
        pair = Pair()
        if slow:
            pair.channel.write(MUCH)
        reading = pair.reading()
        await asyncio.sleep(0)
        pair.channel.check_deadline(pair.loop.time())
        assert not reading.done()
        pair.channel.check_deadline(pair.loop.time() + 1000)
        with pytest.raises(ClientSilent):
            await reading
        pair.channel.session_over()
        assert pair.ended == [pair.channel]
        pair.client.close()

    run(test)


def test_a_session_that_is_busy_has_no_deadline() -> None:
    async def test() -> None:
        pair = Pair()
        pair.client.send(b"NOOP\r\n")
        assert await pair.channel.read(idle=True) == b"NOOP\r\n"
        pair.channel.check_deadline(pair.loop.time() + 1000)
        pair.client.send(b"RSET\r\n")
        assert await pair.channel.read(idle=True) == b"RSET\r\n"
        pair.channel.session_over()
        pair.client.close()

    run(test)


def test_the_last_words_are_not_waited_for_for_ever() -> None:
    async def test() -> None:
        pair = Pair()
        pair.channel.write(MUCH)
        pair.channel.session_over()
        pair.channel.check_deadline(pair.loop.time())
        assert pair.ended == []
        pair.channel.check_deadline(pair.loop.time() + 1000)
        assert pair.ended == [pair.channel]
        pair.client.close()

    run(test)


def test_only_idle_sessions_end_with_the_system() -> None:
    async def test() -> None:
        idle, busy = Pair(), Pair()
        tasks = idle.reading(), busy.reading(idle=False)
        await asyncio.sleep(0)
        for one in (idle, busy):
            one.channel.stop()
        with pytest.raises(ServerStopping):
            await tasks[0]
        busy.client.send(b".\r\n")
        assert await tasks[1] == b".\r\n"
        for one in (idle, busy):
            one.channel.session_over()
            one.client.close()

    run(test)


def test_closed_by_another_callback_while_a_session_waits() -> None:
    async def test() -> None:
        pair = Pair()
        reading = pair.reading()
        await asyncio.sleep(0)
        pair.loop.call_soon(pair.channel.close)
        with pytest.raises(ClientGone):
            await reading
        pair.channel.session_over()
        pair.client.close()

    run(test)
