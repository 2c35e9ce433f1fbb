"""The stream of showq, and who may see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.postqueue.listing import ListingRefused, parse_stream
from daemons.showq import Lister, Prepared, ShowqParams
from libmail.ipc.messages import Envelope, QueueId, Recipient, Target
from libmail.lookup.authorization import AuthorizedUsers
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFileWriter
from libmail.queue.queued import QueuedMessage
from libmail.queue.reasons import ReasonLog
from libmail.service.connection import Connection

QUEUE = QueueDirectory(frozenset())


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("deferred", "defer"):
        (tmp_path / name).mkdir()


def lister(users: str) -> Lister:
    params = ShowqParams(users, 1, ())
    listed = AuthorizedUsers("authorized_mailq_users", users, "view the mail queue")
    return Lister(Prepared(params, listed))


def listed_to(lister: Lister, path: Path) -> list[QueuedMessage]:
    """What postqueue(1) makes of the stream, over a real socket."""

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        async def serve(connection: Connection) -> None:
            await lister.serve(connection)
            connection.close()
            ended.set()

        tasks = set[asyncio.Task[None]]()

        def accept() -> Connection:
            connection = Connection("showq")
            tasks.add(loop.create_task(serve(connection)))
            return connection

        server = await loop.create_unix_server(accept, str(path / "showq"))
        reader, writer = await asyncio.open_unix_connection(str(path / "showq"))
        data = await reader.read(-1)
        await ended.wait()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return data

    pieces = iter([asyncio.run(run())])
    read: Callable[[], bytes] = lambda: next(pieces, b"")  # noqa: E731
    return list(parse_stream(read))


def make(sender: str, *recipients: str) -> QueueId:
    writer = QueueFileWriter(QUEUE, "deferred", long_ids=False)
    writer.write_header(b"Subject: x\r\n")
    todo = [Recipient(address) for address in recipients]
    writer.complete(Envelope(sender, arrival=1700000000.0), todo, ContentFlag(0))
    writer.close()
    return writer.queue_id


def test_listing(short_tmp: Path) -> None:
    name = make("", "c@d", "é@f")
    target = Target("c@d", "c@d", "", 0, 0, "delayed", "4.4.1", "no route")
    os.close(ReasonLog(QUEUE, "defer").append(name, [target]))
    (found,) = listed_to(lister("static:anyone"), short_tmp)
    assert (found.queue_name, found.queue_id, found.sender) == ("deferred", name, "MAILER-DAEMON")
    assert (found.time, found.size, found.forced_expire) == (1700000000, 12, False)
    assert [(r.address, r.reason) for r in found.recipients] == [("c@d", "no route"), ("é@f", "")]


def test_long_listing(short_tmp: Path) -> None:
    for _ in range(250):
        make("a@b", "c@d")
    assert len(listed_to(lister("static:anyone"), short_tmp)) == 250


def test_refusal(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmail.lookup.authorization.UserNames.find", lambda *_: "bob")
    monkeypatch.setattr("libmail.lookup.authorization.os.getuid", lambda: -1)
    monkeypatch.setattr(Connection, "credentials", type("C", (), {"uid": 2002}))
    make("a@b", "c@d")
    with pytest.raises(ListingRefused) as caught:
        listed_to(lister("alice"), short_tmp)
    assert str(caught.value) == "User bob(2002) is not allowed to view the mail queue"
    assert len(listed_to(lister("alice, bob"), short_tmp / os.curdir)) == 1
