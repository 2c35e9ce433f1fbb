"""The queue's file system loses what was not on disk: what was accepted is delivered, as it was.

ext4 is told to stop as at a power failure (EXT4_IOC_SHUTDOWN without a flush of the journal).
Right before it the blocks of queue files are written, but not the names that they have by now:
so files that are used again have content of one message under the name of another.
"""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import ContentFlag, QueueFile, QueueFileCorrupt, QueueFileWriter
from libmail.queue.spare import SpareFiles, SpareSupply
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.mounts import Ext4, ext4
from tests.system.numbered import TRIED_SOON, Clients, content_of, number_of, wait_for_all
from tests.system.sink import PythonSink, Received

FAILURES: Final = 4
QUEUES: Final = ("incoming", "active", "spare")
SYNC_FILE_RANGE_WRITE_AND_WAIT: Final = 7


@pytest.fixture
def disk(system: MailSystem, tmp_path: Path) -> Iterator[Ext4]:
    with ext4(system.queue_directory, tmp_path) as disk:
        yield disk
        system.halt()


@pytest.fixture
def system(make_system: MakeSystem) -> MailSystem:
    system = make_system(
        main=TRIED_SOON,
        privileged=True,
    )
    system.allow("(?:warning|error|fatal): ")
    return system


def write_blocks(queue: Path) -> None:
    """Content to disk; the journal, with names and modes, stays where it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    for folder in QUEUES:
        for path in (queue / folder).iterdir():
            with suppress(OSError):
                fd = os.open(path, os.O_RDONLY)
                libc.sync_file_range(
                    fd, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE_AND_WAIT
                )
                os.close(fd)


def is_intact(message: Received) -> bool:
    """Whether it is one message, and the one of its sender."""
    number = number_of(message)
    if number is None:
        return not message.sender  # a notification
    content = content_of(number).partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    return message.sender == f"s{number}@client.test" and message.content.endswith(
        b"\r\n\r\n" + content
    )


@pytest.mark.root
def test_nothing_accepted_is_lost(system: MailSystem, disk: Ext4) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice, port = random.Random(seed), free_port()
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    doubtful: set[int] = set()  # what was answered while the file system stopped
    with PythonSink(port) as sink, Clients(system) as clients:
        for _ in range(FAILURES):
            clients.wait_for_more(dice.randrange(50, 150))
            time.sleep(dice.random() * 0.05)
            write_blocks(system.queue_directory)
            accepted = set(clients.accepted)
            disk.fail()
            system.kill_all()
            doubtful |= clients.accepted - accepted
            disk.unmount()
            assert disk.mount()
            system.start()
        clients.wait_for_more(20)
        clients.stop()
        wait_for_all(sink, clients.accepted - doubtful, system)
    assert [message for message in sink.messages if not is_intact(message)] == []
    for path in (system.queue_directory / "corrupt").iterdir():
        assert system.log_lines(f"{path.name}: corrupted queue file")
        path.unlink()
    system.wait_for_queue_empty()


@pytest.mark.root
def test_a_name_with_the_content_of_another_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the name of a message that was delivered, and its file has been used again."""
    folder = tmp_path / "queue"
    folder.mkdir()
    queue, spare = QueueDirectory(frozenset()), SpareFiles(1)
    with ext4(folder, tmp_path) as disk:
        monkeypatch.chdir(folder)
        for name in QUEUES:
            (folder / name).mkdir()
        old = write_message(queue, b"old\r\n")
        queue.rename(old, "incoming", "active")
        os.sync()
        assert spare.keep(queue.path("active", old))
        new = write_message(queue, b"new\r\n", SpareSupply())
        write_blocks(folder)
        disk.fail()
        monkeypatch.chdir(tmp_path)
        disk.unmount()
        assert disk.mount()
        assert [path.name for path in folder.glob("*/*")] == [old]
        with QueueFile(str(folder / queue.path("active", old))) as file:
            assert b"".join(file.body()) == b"\r\nnew\r\n"
            file.verify(new)
            with pytest.raises(QueueFileCorrupt):
                file.verify(old)


def write_message(queue: QueueDirectory, body: bytes, supply: SpareSupply | None = None) -> QueueId:
    writer = QueueFileWriter(queue, "incoming", long_ids=True, supply=supply)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(b"\r\n" + body)
    writer.complete(Envelope("a@x.test"), [Recipient("b@x.test")], ContentFlag(0))
    writer.close()
    return writer.queue_id
