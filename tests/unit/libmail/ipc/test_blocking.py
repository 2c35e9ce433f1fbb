"""The connection of commands to services."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from libmail.ipc.blocking import BlockingConnection, ServiceDown
from libmail.ipc.frames import WireError, frame
from libmail.ipc.messages import CODEC, FlushReply, SubmitResult


@pytest.fixture
def serve(short_tmp: Path) -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """Starts a service that treats one client in a thread; returns its path."""
    listener = socket.socket(socket.AF_UNIX)
    threads = []

    def start(treat: Callable[[socket.socket], None]) -> str:
        listener.bind(str(short_tmp / "service"))
        listener.listen()

        def run() -> None:
            client, _ = listener.accept()
            with client:
                treat(client)

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return str(short_tmp / "service")

    yield start
    for thread in threads:
        thread.join(5)
    listener.close()


Serve = Callable[[Callable[[socket.socket], None]], str]


def test_exchange_in_small_pieces(serve: Serve) -> None:
    def treat(client: socket.socket) -> None:
        assert client.recv(1000) == frame("QueueFlush", queue_id="")
        for octet in CODEC.encode(FlushReply("no")):
            client.sendall(bytes([octet]))

    connection = BlockingConnection(serve(treat), 5)
    connection.send("QueueFlush", queue_id="")
    assert connection.receive("FlushReply") == {"reason": "no"}
    connection.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0\0", b"\xff\xff\xff\xff", b"\x80\0\0\1x", CODEC.encode(SubmitResult(0, "", ""))],  # type: ignore[arg-type]
    ids=["closed", "torn", "huge", "chunk", "another"],
)
def test_bad_answers(serve: Serve, answer: bytes) -> None:
    connection = BlockingConnection(serve(lambda client: client.sendall(answer)), 5)
    with pytest.raises(WireError):
        connection.receive("FlushReply")
    connection.close()


def test_nobody_listens(short_tmp: Path) -> None:
    with pytest.raises(ServiceDown, match="No such file or directory"):
        BlockingConnection(str(short_tmp / "nothing"), 5)
