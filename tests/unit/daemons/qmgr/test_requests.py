"""Requests at the socket of qmgr: who may ask for what."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Iterator

import pytest

from daemons.qmgr import requests
from daemons.qmgr.requests import RequestConnection, RequestHandlers
from libmail.ipc.messages import CODEC, FlushReply, NewMail, QueueFlush, QueueId
from libmail.service.connection import Credentials
from tests.unit.waiting import until

ID = QueueId("4gXyzB12bbcdz1")


class Answers(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False
        self.reading: list[bool] = []  # what was said of it

    def pause_reading(self) -> None:
        self.reading.append(False)

    def resume_reading(self) -> None:
        self.reading.append(True)

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True


class Client:
    def __init__(self, refused: str = "") -> None:
        self.calls: list[str] = []
        self.refused = refused
        self.answers = Answers()
        self.ours, self.theirs = socket.socketpair()
        self.connection = RequestConnection(
            self.ours,
            RequestHandlers(
                lambda queue_id: self.calls.append(f"new {queue_id}"),
                lambda queue_id: self.calls.append(f"flush {queue_id}"),
                self.calls.append,
                lambda connection: self.calls.append("ended"),
                self.refusal,
                self.run,
            ),
        )

    async def refusal(self, uid: int) -> str:
        return self.refused

    @staticmethod
    def run(coroutine: Coroutine[object, object, object]) -> None:
        with pytest.raises(StopIteration):
            coroutine.send(None)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


@pytest.mark.parametrize(
    ("data", "want"),
    [(b"W", ["W"]), (b"IDAF", list("AFDI")), (b"DDDD", ["D"]), (b"xyz", [])],
)
def test_triggers_are_sorted_and_collapsed(client: Client, data: bytes, want: list[str]) -> None:
    client.connection.data_received(data)
    assert client.calls == want


def test_messages_in_any_chunks(client: Client) -> None:
    data = b"".join(CODEC.encode(m) for m in (NewMail(ID), QueueFlush(QueueId("")), NewMail(ID)))
    for at in range(len(data)):
        client.connection.data_received(data[at : at + 1])
    assert client.calls == [f"new {ID}", "flush ", f"new {ID}"]


@pytest.mark.parametrize("queue_id", ["", "../../etc/passwd", "a/b", "x" * 300])
def test_bad_ids_are_refused(client: Client, queue_id: str) -> None:
    client.connection.data_received(CODEC.encode(NewMail(QueueId(queue_id))))
    assert client.calls == []


def test_flush_is_answered(client: Client) -> None:
    client.connection.connection_made(client.answers)
    client.connection.data_received(CODEC.encode(QueueFlush(ID)))
    assert client.calls == [f"flush {ID}"]
    assert client.answers.data == CODEC.encode(FlushReply(""))


@pytest.mark.parametrize(
    ("refused", "flushed"), [("", ["flush "]), ("User bob(2002) is not allowed", [])]
)
def test_other_users_may_flush_if_listed(
    refused: str, flushed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = make_stranger(monkeypatch, refused)
    stranger.connection.data_received(CODEC.encode(QueueFlush(QueueId(""))))
    assert stranger.calls == flushed
    assert stranger.answers.data == CODEC.encode(FlushReply(refused))
    stranger.calls.clear()
    stranger.connection.data_received(b"I")
    assert stranger.calls == ([] if refused else ["I"])
    stranger.close()


def test_other_users_may_not_announce_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = make_stranger(monkeypatch, "")
    stranger.connection.data_received(CODEC.encode(NewMail(ID)))
    assert stranger.calls == []
    assert stranger.answers.closed
    stranger.close()


def make_stranger(monkeypatch: pytest.MonkeyPatch, refused: str) -> Client:
    other = os.geteuid() + 1
    monkeypatch.setattr(requests, "peer_credentials", lambda _: Credentials(1, other, other))
    stranger = Client(refused)
    stranger.connection.connection_made(stranger.answers)
    return stranger


def test_end_is_told_once(client: Client) -> None:
    async def run() -> None:
        client.ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: client.connection, client.ours)
        client.theirs.sendall(b"I")
        client.theirs.close()
        await until(lambda: "ended" in client.calls)
        await asyncio.sleep(0.02)  # not twice

    asyncio.run(run())
    assert client.calls == ["I", "ended"]


def test_others_have_their_turn(client: Client) -> None:
    many = 200

    async def run() -> None:
        client.connection.connection_made(client.answers)
        client.connection.data_received(CODEC.encode(NewMail(ID)) * many)
        assert len(client.calls) < many
        await until(lambda: len(client.calls) == many)
        assert client.answers.reading == [False, True, False, True, False, True]

    asyncio.run(run())


def test_a_client_that_never_reads_is_not_listened_to(client: Client) -> None:
    client.connection.connection_made(client.answers)
    client.connection.pause_writing()
    client.connection.data_received(CODEC.encode(NewMail(ID)))
    assert client.calls == []
    client.connection.resume_writing()
    assert client.calls == [f"new {ID}"]
    assert client.answers.reading == [False, True]
