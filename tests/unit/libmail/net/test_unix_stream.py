"""The transport that carries descriptors: order, back-pressure, the end, nothing left open."""

from __future__ import annotations

import array
import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.net.unix_stream import StrayDescriptors, UnixStream, connect_unix
from tests.unit.waiting import until


class Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.paused = self.resumed = 0
        self.error: Exception | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = cast(UnixStream, transport)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.paused += 1

    def resume_writing(self) -> None:
        self.resumed += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.ended.set_result(None)


async def pair(*, descriptors: bool = True) -> tuple[Collector, Collector]:
    one, other = socket.socketpair()
    for sock in (one, other):
        sock.setblocking(False)
    ours, theirs = Collector(), Collector()
    UnixStream(one, ours)
    UnixStream(other, theirs, descriptors=descriptors)
    return ours, theirs


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run it, and see that no descriptor is left open."""

    async def main() -> None:
        gc.collect()  # what other tests have left
        before = len(os.listdir("/proc/self/fd"))
        await test()
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


def test_bytes_in_order_and_the_end() -> None:
    async def test() -> None:
        ours, theirs = await pair()
        ours.stream.write(b"a")
        ours.stream.writelines([b"b", memoryview(b"c"), b""])
        ours.stream.close()
        assert ours.stream.is_closing()
        await theirs.ended
        assert theirs.received == b"abc"
        assert (ours.error, theirs.error) == (None, None)
        ours.stream.write(b"for nobody")
        await ours.ended

    run(test)


def test_back_pressure() -> None:
    async def test() -> None:
        ours, theirs = await pair()
        theirs.stream.pause_reading()
        data = os.urandom(3_000_000)
        ours.stream.writelines([data[:1000], data[1000:2_000_000]])
        ours.stream.write(data[2_000_000:])
        assert ours.paused == 1
        await asyncio.sleep(0)
        assert theirs.received == b""
        theirs.stream.resume_reading()
        await until(lambda: ours.resumed == 1)
        ours.stream.close()
        await theirs.ended
        assert theirs.received == data

    run(test)


def test_descriptors_come_with_their_bytes() -> None:
    async def test() -> None:
        ours, theirs = await pair()
        read, write = os.pipe()
        ours.stream.write(b"x" * 10)
        ours.stream.write_with(b"message", [read, write])
        os.close(read)
        os.close(write)
        ours.stream.write(b"y")
        await until(lambda: theirs.received.endswith(b"y"))
        with pytest.raises(StrayDescriptors):
            theirs.stream.take_descriptors(3)
        read, write = theirs.stream.take_descriptors(2)
        os.write(write, b"through")
        assert os.read(read, 10) == b"through"
        os.close(read)
        os.close(write)
        ours.stream.abort()
        await theirs.ended

    run(test)


def test_descriptors_wait_for_their_turn() -> None:
    async def test() -> None:
        ours, theirs = await pair()
        theirs.stream.pause_reading()
        ours.stream.write(bytes(1_000_000))
        read, write = os.pipe()
        ours.stream.write_with(b"!", [read])
        os.close(read)
        theirs.stream.resume_reading()
        await until(lambda: theirs.received.endswith(b"!"))
        (got,) = theirs.stream.take_descriptors(1)
        os.write(write, b"z")
        assert os.read(got, 10) == b"z"
        os.close(got)
        os.close(write)
        ours.stream.abort()
        await theirs.ended

    run(test)


def test_what_was_not_taken_is_closed() -> None:
    async def test() -> None:
        ours, theirs = await pair()
        theirs.stream.pause_reading()
        with open(os.devnull) as null:
            ours.stream.write_with(b"x", [null.fileno()])
            ours.stream.write(bytes(1_000_000))
            ours.stream.write_with(b"y", [null.fileno()])
            theirs.stream.resume_reading()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        ours.stream.abort()
        await theirs.ended

    run(test)


def test_nobody_gets_descriptors_in_who_may_not() -> None:
    async def test() -> None:
        ours, theirs = await pair(descriptors=False)
        with open(os.devnull) as null:
            ours.stream.write_with(b"x", [null.fileno()])
        await until(lambda: theirs.received == b"x")
        with pytest.raises(StrayDescriptors):
            theirs.stream.take_descriptors(1)
        ours.stream.abort()
        await theirs.ended

    run(test)


def test_a_flood_of_descriptors_ends_the_connection() -> None:
    async def test() -> None:
        one, other = socket.socketpair()
        one.setblocking(False)
        protocol = Collector()
        UnixStream(one, protocol, descriptors=True)
        with open(os.devnull) as null:
            rights = array.array("i", [null.fileno()] * 15)
            message = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            other.sendmsg([b"x"], message)
            other.sendmsg([b"x"], message)
            await protocol.ended
        assert isinstance(protocol.error, OSError)
        other.close()

    run(test)


def test_a_peer_that_is_gone() -> None:
    async def test() -> None:
        one, other = socket.socketpair()
        one.setblocking(False)
        protocol = Collector()
        UnixStream(one, protocol)
        other.close()
        protocol.stream.write(b"x")
        assert not protocol.ended.done()  # never from within the call
        await protocol.ended
        assert isinstance(protocol.error, OSError)

    run(test)


def test_nobody_listens(short_tmp: object) -> None:
    async def test() -> None:
        with pytest.raises(FileNotFoundError):
            connect_unix(f"{short_tmp}/nothing", Collector())

    run(test)


@given(st.lists(st.integers(0, 3), max_size=12))
def test_any_mixture_arrives_in_order(numbers: list[int]) -> None:
    async def test() -> None:
        ours, theirs = await pair()
        want = b""
        with open(os.devnull) as null:
            for at, number in enumerate(numbers):
                data = bytes([at]) * (1 + 7000 * number)
                ours.stream.write_with(data, [null.fileno()] * number)
                want += data
                await until(lambda: theirs.received == want)  # noqa: B023
                for fd in theirs.stream.take_descriptors(number):
                    os.close(fd)
        ours.stream.close()
        await theirs.ended
        assert theirs.received == want

    run(test)
