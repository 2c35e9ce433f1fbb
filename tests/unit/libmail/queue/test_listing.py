"""What is in the queue, in the midst of files that are no messages."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libmail.ipc.messages import Envelope, QueueId, Recipient, Target
from libmail.log import LOG
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import (
    FORCED_EXPIRY,
    PREAMBLE_SIZE,
    ContentFlag,
    Extent,
    Preamble,
    QueueFile,
    QueueFileWriter,
)
from libmail.queue.listing import list_queue
from libmail.queue.reasons import ReasonLog

QUEUE = QueueDirectory(frozenset({"deferred", "defer"}), 1)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("maildrop", "incoming", "active", "deferred", "hold"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/test")
    return lines


def make(queue_name: str, sender: str = "a@b", *recipients: str) -> QueueId:
    writer = QueueFileWriter(QUEUE, queue_name, long_ids=False)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(b"\r\nbody\r\n")
    todo = [Recipient(address, address) for address in recipients or ("c@d",)]
    writer.complete(Envelope(sender, arrival=1700000000.0), todo, ContentFlag(0))
    writer.close()
    return writer.queue_id


def test_listing() -> None:
    deferred, hold = make("deferred", "a@b", "c@d", "done@d", "e@f"), make("hold", "")
    with QueueFile(QUEUE.path("deferred", deferred), writable=True) as file:
        file.mark_done(list(file.recipients())[1])
    target = Target("c@d", "c@d", "", 0, 0, "delayed", "4.4.1", "no route")
    os.close(ReasonLog(QUEUE, "defer").append(deferred, [target]))
    os.chmod(QUEUE.path("hold", hold), 0o700 | FORCED_EXPIRY)
    first, second = list_queue(QUEUE)
    assert (first.queue_name, first.queue_id, first.sender) == ("deferred", deferred, "a@b")
    assert (first.time, first.size, first.forced_expire) == (1700000000, 20, False)
    assert [(r.address, r.reason) for r in first.recipients] == [("c@d", "no route"), ("e@f", "")]
    assert (second.queue_name, second.sender, second.forced_expire) == ("hold", "", True)


def test_listing_shows_what_an_alias_stands_for() -> None:
    deferred = make("deferred", "a b@c", "list@d", "e f@g")
    member = Target("member@d", "list@d", "", 0, 100, "delayed", "4.3.0", "later")
    targets = [member, member._replace(reason="full")]
    os.close(ReasonLog(QUEUE, "defer").append(deferred, targets))
    (found,) = list_queue(QUEUE)
    assert [(recipient.address, recipient.reason) for recipient in found.recipients] == [
        ("member@d", "later"), ("member@d", "full"), ("list@d", ""), ('"e f"@g', ""),
    ]  # fmt: skip
    assert found.sender == '"a b"@c'


def test_a_message_is_listed_without_its_log(directory: Path, logged: list[str]) -> None:
    deferred = make("deferred", "a b@c", "list@d")
    (directory / QUEUE.path("defer", deferred)).mkdir(parents=True)
    (found,) = list_queue(QUEUE)
    assert [recipient.address for recipient in found.recipients] == ["list@d"]
    assert len(logged) == 1


def test_maildrop_counts_the_envelope() -> None:
    make("maildrop")
    (found,) = list_queue(QUEUE)
    assert 60 < found.size < 120


def test_files_that_are_not_complete(directory: Path, logged: list[str]) -> None:
    QueueFileWriter(QUEUE, "incoming", long_ids=False).close()
    (directory / "incoming/other").write_bytes(b"")
    assert list(list_queue(QUEUE)) == []
    assert logged == []


@pytest.mark.parametrize("kind", ["short", "noise", "fifo", "link", "folder"])
def test_hostile_files(directory: Path, logged: list[str], kind: str) -> None:
    path = directory / "maildrop/ABCDEF12"
    if kind == "fifo":
        os.mkfifo(path, 0o700)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"x" * (10 if kind == "short" else 5000))
        path.chmod(0o700)
    make("incoming")
    assert [message.queue_name for message in list_queue(QUEUE)] == ["incoming"]
    assert len(logged) == 1


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arrival=st.floats(),
    extents=st.lists(
        st.tuples(st.sampled_from([0, 128, 129, 300, 2**63]), st.sampled_from([0, 1, 40, 2**20])),
        min_size=4, max_size=4,
    ),
    attributes=st.sampled_from(
        [
            b"request\0Envelope\0sender\0a\0",
            b"request\0Envelope\0sender\0a\0arrival\0001e300\0",
            b"request\0Envelope\0sender\0a\0flags\0" + b"9" * 5000 + b"\0",
            b"\xff\0",
        ]
    ),
    whole=st.booleans(),
    recipients=st.sampled_from(
        [b"R\0\5a\0\0\0" + b"0", b"R\0\x06a\0\0\0000\0", b"R\xff\xff", b"X"]
    ),
)  # fmt: skip
def test_what_users_leave_in_maildrop_breaks_no_listing(
    directory: Path, arrival: float, extents: list[tuple[int, int]], attributes: bytes,
    whole: bool, recipients: bytes,
) -> None:  # fmt: skip
    """Their files are as well formed as they like."""
    header, body, envelope, todo = (Extent(*one) for one in extents)
    if whole:
        envelope = Extent(PREAMBLE_SIZE, len(attributes))
        todo = Extent(envelope.end, len(recipients))
        header = body = Extent(PREAMBLE_SIZE, 0)
    preamble = Preamble(0, header, body, envelope, todo, arrival, 1)
    path = directory / "maildrop/ABCDEF12"
    path.write_bytes(preamble.encode() + attributes + recipients)
    path.chmod(0o740)
    for message in list_queue(QUEUE):
        assert time.ctime(message.time)
