"""connector, and what asks it: sockets and files that are closed to somebody else."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemons import connector
from libmail.net import introduction
from libmail.net.endpoint import Endpoint, EndpointOpener
from libmail.net.introduction import introduced, scratch_file, unix_socket
from libmail.net.unix_stream import UnixStream
from libmail.service.connection import Connection

PROBLEM = PermissionError(errno.EACCES, "closed")


@pytest.fixture
def queue(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(short_tmp)
    for name in ("private", "incoming"):
        (short_tmp / name).mkdir()
    return short_tmp


@pytest.fixture
def box(queue: Path) -> Iterator[socket.socket]:
    """A server at private/box, that its owner alone may connect to."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("private/box")
        os.chmod("private/box", 0o600)
        listener.listen()
        yield listener


async def with_connector(work: Callable[[], object]) -> None:
    """Run it while connector serves."""
    tasks = set[asyncio.Task[None]]()

    async def serve(sock: socket.socket) -> None:
        connection = Connection("connector", serving=True)
        UnixStream(sock, connection)
        try:
            await connector._serve(connection)
        except Exception:  # noqa: BLE001  it is the client that is looked at
            connection.close()

    async def accept() -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            tasks.add(asyncio.create_task(serve(sock)))

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("private/connector")
        listener.listen()
        listener.setblocking(False)
        accepting = asyncio.create_task(accept())
        try:
            await work()  # type: ignore[misc]
        finally:
            accepting.cancel()
            await asyncio.wait([accepting, *tasks])


def hello(listener: socket.socket, sock: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer, sock:
        peer.sendall(b"hello")
        sock.setblocking(True)
        assert sock.recv(5) == b"hello"


@pytest.mark.parametrize("path", ["private/box", "{top}/private/box"])
def test_a_closed_socket(box: socket.socket, queue: Path, path: str) -> None:
    async def test() -> None:
        sock = await introduced(path.format(top=queue), PROBLEM)
        assert not sock.getblocking()
        hello(box, sock)

    asyncio.run(with_connector(test))


def test_in_a_jail_the_queue_directory_is_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: "/")
    assert introduction._outside("/run/box") == "run/box"
    monkeypatch.setattr(os, "getcwd", lambda: "/var/spool/postfix")
    assert introduction._outside("/run/box") == "/run/box"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("private/open", errno.EACCES),  # as those of our own services
        ("private/link", errno.EACCES),
        ("private/nothing", errno.ENOENT),
        ("incoming", errno.ECONNREFUSED),
        ("private/quiet", errno.ECONNREFUSED),
    ],
)
def test_what_is_refused(queue: Path, path: str, code: int) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as quiet:
        listener.bind("private/open")
        os.chmod("private/open", 0o666)
        listener.listen()
        os.symlink("open", "private/link")
        quiet.bind("private/quiet")  # nobody listens
        os.chmod("private/quiet", 0o600)

        async def test() -> None:
            with pytest.raises(OSError) as caught:
                await introduced(path, PROBLEM)
            assert caught.value.errno == code

        asyncio.run(with_connector(test))


def test_nobody_helps(queue: Path) -> None:
    async def test() -> None:
        with pytest.raises(PermissionError) as caught:
            await introduced("private/box", PROBLEM)
        assert caught.value is PROBLEM

    asyncio.run(test())


def test_a_connector_that_hangs_up(queue: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def test() -> None:
        async with await asyncio.start_unix_server(hang_up, "private/connector"):
            with pytest.raises(ConnectionResetError):
                await introduced("private/box", PROBLEM)

    asyncio.run(test())


def test_help_is_asked_for_only_if_needed(
    box: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_way(request: object, problem: OSError) -> int:
        raise problem

    def closed(path: str) -> socket.socket:
        raise PROBLEM

    monkeypatch.setattr(introduction, "_opened", no_way)

    async def test() -> None:
        hello(box, await unix_socket("private/box"))
        opener = EndpointOpener(Endpoint("private/box"), lambda: pytest.fail("no host"))
        hello(box, await opener.open_socket())
        monkeypatch.setattr(introduction, "connected_unix", closed)
        with pytest.raises(PermissionError):
            await opener.open_socket()

    asyncio.run(test())


def test_a_file_without_a_name(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(dir: str) -> object:  # noqa: A002  as the function that it stands for
        raise PROBLEM

    async def test() -> None:
        with await scratch_file("incoming") as file:  # which it may make itself
            file.write(b"x")
        monkeypatch.setattr(tempfile, "TemporaryFile", closed)
        with await scratch_file("incoming") as file:
            file.write(b"content")
            file.seek(0)
            assert file.read() == b"content"
            with pytest.raises(OSError, match="No such file"):
                os.link(f"/proc/self/fd/{file.fileno()}", "incoming/name", src_dir_fd=file.fileno())
        assert os.listdir("incoming") == []

    asyncio.run(with_connector(test))
