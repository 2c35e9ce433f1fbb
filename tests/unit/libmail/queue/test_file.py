"""Queue files: written whole and read back, corrupt ones recognised."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libmail.ipc.messages import Envelope, Recipient
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import (
    DONE,
    PREAMBLE_SIZE,
    ContentFlag,
    QueueFile,
    QueueFileCorrupt,
    QueueFileWriter,
)

ENVELOPE = Envelope(sender="alice@example.com", arrival=1_700_000_000.25, client_name="host")
RECIPIENTS = [Recipient("a@x.test", "A@x.test", "rfc822;a", 2), Recipient("b@x.test")]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueueDirectory:
    monkeypatch.chdir(tmp_path)
    for name in ("incoming", "active", "deferred"):
        os.mkdir(name)
    return QueueDirectory()


def write(queue: QueueDirectory, header: bytes, body: list[bytes]) -> str:
    writer = QueueFileWriter(queue, "incoming", long_ids=False)
    writer.write_header(header)
    for piece in body:
        writer.write_body(piece)
    writer.complete(ENVELOPE, RECIPIENTS, ContentFlag.EIGHTBIT_BODY)
    writer.close()
    return writer.path


@pytest.mark.parametrize(
    "body",
    [[], [b"\r\nhello\r\n"], [b"x" * 100_000] * 9, [b"y" * 300_000, b"z"], [b"a"] * 3000],
    ids=["empty", "small", "pieces", "large", "many"],
)
def test_round_trip(queue: QueueDirectory, body: list[bytes]) -> None:
    path = write(queue, b"Subject: x\r\n", body)
    assert os.stat(path).st_mode & 0o777 == 0o700
    with QueueFile(path) as file:
        assert file.header() == b"Subject: x\r\n"
        assert b"".join(file.body(1000)) == b"".join(body)
        assert file.envelope() == ENVELOPE
        found = list(file.recipients())
        assert [r._replace(offset=0) for r in found] == RECIPIENTS
        assert file.preamble.flags == ContentFlag.EIGHTBIT_BODY
        assert file.preamble.size == 12 + len(b"".join(body))
        small = file.small_content()
        if small is not None:
            assert small == b"Subject: x\r\n" + b"".join(body)
        else:
            assert file.preamble.size > 10_000


def test_marking_recipients_done(queue: QueueDirectory) -> None:
    path = write(queue, b"", [])
    with QueueFile(path, writable=True) as file:
        first, second = file.recipients()
        file.mark_done(first)
    with QueueFile(path) as file:
        assert list(file.recipients()) == [second]
        assert list(file.recipients(states=DONE)) == [first]
        assert list(file.recipients(first.offset)) == [second]


def test_unfinished_file_is_corrupt(queue: QueueDirectory) -> None:
    writer = QueueFileWriter(queue, "incoming", long_ids=True)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(b"y" * 600_000)
    with pytest.raises(QueueFileCorrupt):
        QueueFile(writer.path)
    writer.discard()
    assert os.listdir("incoming") == []


def test_fifo_does_not_block(queue: QueueDirectory) -> None:
    os.mkfifo("incoming/F00D00BEEF")
    with pytest.raises((OSError, QueueFileCorrupt)):
        QueueFile("incoming/F00D00BEEF")


@pytest.mark.parametrize("size", [0, 1, PREAMBLE_SIZE - 1, PREAMBLE_SIZE, PREAMBLE_SIZE + 40])
def test_truncated(queue: QueueDirectory, size: int) -> None:
    path = write(queue, b"Subject: x\r\n", [b"\r\n" + b"line\r\n" * 4000])
    os.truncate(path, size)
    with pytest.raises(QueueFileCorrupt):
        QueueFile(path)


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=60))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_seen_or_harmless(queue: QueueDirectory, at: int, junk: bytes) -> None:
    path = write(queue, b"Subject: x\r\n", [b"\r\n" + b"line\r\n" * 20])
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(junk)
    try:
        with QueueFile(path) as queue_file:
            queue_file.envelope()
            list(queue_file.recipients())
            list(queue_file.body())
    except QueueFileCorrupt:
        pass
    os.unlink(path)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_hashed_directories(queue: QueueDirectory, depth: int) -> None:
    hashed = QueueDirectory(frozenset({"deferred"}), depth)
    writer = QueueFileWriter(queue, "incoming", long_ids=False)
    path = hashed.rename(writer.queue_id, "incoming", "deferred")
    assert path == hashed.path("deferred", writer.queue_id)
    assert path.count("/") == depth + 1
    assert [entry.name for entry in hashed.scan("deferred")] == [writer.queue_id]
    assert hashed.find(writer.queue_id) == "deferred"
    assert hashed.remove("deferred", writer.queue_id)
    assert not hashed.remove("deferred", writer.queue_id)
    writer.close()
