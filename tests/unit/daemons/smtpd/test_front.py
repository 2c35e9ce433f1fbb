"""What dialogues cannot show: time limits, the end of the system, half-closed clients, -S."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from daemons.smtpd.standalone import serve_descriptors
from daemons.smtpd.verb import Verb
from daemons.smtpd.verbs import VERBS
from libmail.config import open_config
from libmail.ipc.codec import Chunk
from libmail.ipc.messages import (
    CleanupResult,
    CleanupStatus,
    QueueId,
    Recipients,
    SubmitOpen,
    SubmitResult,
)
from libmail.service.connection import Connection, ConnectionLost
from tests.unit.daemons.smtpd.fakes import MAIN_CF, running

GREETING = b"220 mail.example.test ESMTP Postfix\r\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_silent_client_is_sent_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path, "smtpd_timeout = 1s\n") as instance:
            reader, writer = await instance.connect()
            assert await reader.readline() == GREETING
            reply = await asyncio.wait_for(reader.read(), 60)
            assert reply == b"421 4.4.2 mail.example.test Error: timeout exceeded\r\n"
            writer.close()
            await instance.runtime.session_over.wait()
            assert "NOQUEUE: timeout after CONNECT from unknown[127.0.0.1]" in instance.mail.log

    asyncio.run(run())


def test_idle_sessions_end_with_the_system(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as instance:
            reader, writer = await instance.connect()
            assert await reader.readline() == GREETING
            instance.runtime.stopping.set()
            assert (await asyncio.wait_for(reader.read(), 60)).startswith(b"421 4.3.2 ")
            writer.close()

    asyncio.run(run())


def test_a_client_that_has_said_all_gets_its_replies(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as instance:
            reader, writer = await instance.connect()
            writer.write(b"EHLO x\r\n")
            await reader.readuntil(b"CHUNKING\r\n")
            writer.write(b"MAIL FROM:<a@b.org>\r\nRCPT TO:<alice@example.test>\r\n")
            writer.write_eof()
            assert await reader.read() == b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
            writer.close()
            await instance.runtime.session_over.wait()
            assert "QID1: lost connection after RCPT from unknown[127.0.0.1]" in instance.mail.log

    asyncio.run(run())


def test_a_refusal_of_cleanup_is_passed_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as instance:
            status = int(CleanupStatus.CONTENT)
            instance.mail.result = CleanupResult(status, "5.7.1", "no spam", QueueId("X"))
            reader, writer = await instance.connect()
            writer.write(b"EHLO x\r\n")
            await reader.readuntil(b"CHUNKING\r\n")
            writer.write(b"MAIL FROM:<>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n")
            await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            writer.write(b"x\r\n.\r\n")
            assert await reader.readline() == b"550 5.7.1 no spam\r\n"
            writer.close()

    asyncio.run(run())


def _pickup(got: list[object]) -> threading.Thread:
    """Serve one submission in a thread's own loop."""

    async def handle(connection: Connection) -> None:
        got.append(await connection.receive_as(SubmitOpen))
        while True:
            event = await connection.receive()
            if isinstance(event, Recipients):
                got.append([recipient.address for recipient in event.recipients])
            elif isinstance(event, Chunk) and event.data:
                got.append(event.data)
            else:
                connection.send(SubmitResult(0, "", QueueId("REALID")))
                return

    async def serve() -> None:
        done = asyncio.Event()

        def accept() -> Connection:
            connection = Connection("pickup")

            async def run() -> None:
                try:
                    await handle(connection)
                except ConnectionLost:
                    connection.close()
                connection.close()
                done.set()

            tasks.add(asyncio.get_running_loop().create_task(run()))
            return connection

        tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.get_running_loop().create_unix_server(accept, "public/pickup")
        ready.set()
        await asyncio.wait_for(done.wait(), 60)
        server.close()

    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    return thread


def test_stand_alone(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"{MAIN_CF}queue_directory = {tmp_path}\n")
    (tmp_path / "public").mkdir()
    got: list[object] = []
    thread = _pickup(got)
    source, feed = os.pipe()
    result, target = os.pipe()
    os.write(feed, b"EHLO x\r\nMAIL FROM:<a@b.org>\r\nRCPT TO:<any@where.test>\r\nDATA\r\n")
    os.write(feed, b"Subject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n")
    os.close(feed)
    serve_descriptors(open_config(str(tmp_path)), source, target)
    thread.join(10)
    replies = os.read(result, 4096)
    for descriptor in (source, result, target):
        os.close(descriptor)
    assert b"250 2.0.0 Ok: queued as REALID\r\n221 2.0.0 Bye\r\n" in replies
    opening, recipients, content = got
    assert isinstance(opening, SubmitOpen)
    assert (opening.sender, recipients) == ("a@b.org", ["any@where.test"])
    assert isinstance(content, bytes)
    assert content.startswith(b"Received: from x (localhost [127.0.0.1])\r\n")
    assert content.endswith(b"Subject: x\r\n\r\nhi\r\n")


def test_a_bug_costs_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("oops")

    async def run() -> None:
        async with running(tmp_path) as instance:
            reader, writer = await instance.connect()
            assert await reader.readline() == GREETING
            monkeypatch.setitem(VERBS, "HELO", Verb("HELO", fails))  # type: ignore[arg-type]
            writer.write(b"HELO x\r\n")
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()
            await instance.runtime.session_over.wait()
            assert any("panic: " in line for line in instance.mail.log)
            other, other_writer = await instance.connect()
            assert await asyncio.wait_for(other.readline(), 60) == GREETING
            other_writer.close()

    asyncio.run(run())
