"""No client has the process for itself: not one that never stops, and not one that never reads."""

import asyncio
import socket
from pathlib import Path

import pytest

from daemons.smtpd.session import Session
from daemons.smtpd.verbs import VERBS
from libmail.lookup.facts import Client
from libmail.net.channel import ClientGone
from tests.unit.daemons.smtpd.fakes import running
from tests.unit.waiting import until

MANY = 6400
READ = 1 << 16
UNLIMITED = """
smtpd_junk_command_limit = 1000000
smtpd_forbid_unauth_pipelining = no
"""
EHLO = b"EHLO x\r\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Flood:
    """A client that has sent a lot. ways: how often its session let others go on."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ways = 0
        self.replies = b""

    def write(self, data: bytes) -> None:
        self.replies += data

    async def read(self, *, idle: bool) -> bytes:
        data, self.data = self.data[:READ], self.data[READ:]
        if not data:
            raise ClientGone
        return data

    async def give_way(self) -> None:
        self.ways += 1

    def has_sent(self) -> bool:
        return False

    def discard_input(self) -> None:
        raise AssertionError("nobody wants TLS")

    def close(self) -> None:
        pass


TRANSACTION = b"MAIL FROM:<a@b.org>\r\nRCPT TO:<alice@example.test>\r\n"
FLOODS = {
    "commands": b"NOOP\r\n" * MANY,
    "unknown commands": b"FOO\r\n" * MANY,
    "chunks without a message": b"BDAT 0\r\n" * MANY,
    "tiny chunks": TRANSACTION + b"BDAT 1\r\nx" * MANY,
    "content": TRANSACTION + b"DATA\r\n" + b"x" * 78 * (MANY << 4) + b"\r\n.\r\n",
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS)
def test_a_session_gives_way(tmp_path: Path, data: bytes) -> None:
    async def run() -> None:
        settings = UNLIMITED + "smtpd_hard_error_limit = 1000000\nmessage_size_limit = 0\n"
        async with running(tmp_path, settings) as instance:
            flood = Flood(data)
            await Session(instance.server, flood, VERBS, Client("127.0.0.1")).run()
            assert flood.ways >= min(MANY, len(data) >> 14) // 64

    asyncio.run(run())


def test_others_are_greeted_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, UNLIMITED) as instance:
            reader, writer = await instance.connect()
            await reader.readline()
            writer.write(b"NOOP\r\n" * MANY)
            other, other_writer = await instance.connect()
            await other.readline()
            assert len(reader._buffer) < MANY * len(b"250 2.0.0 Ok\r\n")  # type: ignore[attr-defined]
            for _ in range(MANY):
                assert await reader.readline() == b"250 2.0.0 Ok\r\n"
            writer.close()
            other_writer.close()

    asyncio.run(run())


async def _send_for_ever(sock: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(sock, EHLO * 10000)


def test_a_client_that_never_reads_is_not_listened_to(tmp_path: Path) -> None:
    """It can send no more than what the kernel and one buffer hold, and is cut off in the end."""

    async def run() -> None:
        async with running(tmp_path, UNLIMITED + "smtpd_timeout = 1s\n") as instance:
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", instance.port))
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(_send_for_ever(sock), 60)
            sock.close()
            async with asyncio.timeout(60):
                await instance.runtime.session_over.wait()
            assert "NOQUEUE: timeout after EHLO from unknown[127.0.0.1]" in instance.mail.log

    asyncio.run(run())


def test_a_session_is_over_when_its_connection_is(tmp_path: Path) -> None:
    """What was said last is kept for a client that is slow, until smtpd_timeout."""

    async def run() -> None:
        settings = UNLIMITED + "smtpd_timeout = 2s\n"
        async with running(tmp_path, settings) as instance:
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", instance.port))
            await loop.sock_sendall(sock, EHLO * 100 + b"QUIT\r\n")
            async with asyncio.timeout(60):
                await until(lambda: any("disconnect" in line for line in instance.mail.log))
                await instance.runtime.session_over.wait()
            sock.close()

    asyncio.run(run())


def test_who_talks_first_is_not_greeted(tmp_path: Path) -> None:
    async def run() -> None:

        async with running(tmp_path) as instance:
            sock = socket.create_connection(("127.0.0.1", instance.port))
            sock.sendall(b"EHLO x\r\nAUTH PLAIN c2VjcmV0\r\n")
            reader, writer = await asyncio.open_connection(sock=sock)
            reply = await asyncio.wait_for(reader.read(), 60)
            assert reply == b"554 5.5.0 Error: SMTP protocol synchronization\r\n"
            writer.close()
            log = instance.mail.log
            assert (
                "improper command pipelining after CONNECT from unknown[127.0.0.1]:"
                " EHLO x\\r\\nAUTH PLAIN <masked>\\r\\n"
            ) in log
            assert "disconnect from unknown[127.0.0.1] commands=0/0" in log

    asyncio.run(run())
