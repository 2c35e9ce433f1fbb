"""Files of delivered messages become those of new ones, and nothing of one gets into another."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from libmail.ipc.messages import Envelope, QueueId, Recipient
from libmail.queue.directory import QueueDirectory
from libmail.queue.file import (
    ContentFlag,
    QueueFile,
    QueueFileCorrupt,
    QueueFileWriter,
    open_queue_file,
)
from libmail.queue.spare import REUSABLE_SIZE, NewFile, SpareFiles, SpareSupply

QUEUE: Final = QueueDirectory(frozenset())
SECTOR: Final = 512


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("incoming", "active", "spare"):
        (tmp_path / name).mkdir()


def write(body: bytes, *recipients: str, supply: SpareSupply | None = None) -> QueueId:
    """A complete message in the incoming queue."""
    writer = QueueFileWriter(QUEUE, "incoming", long_ids=True, supply=supply)
    writer.write_header(b"Subject: x\r\n")
    writer.write_body(b"\r\n" + body)
    envelope = Envelope("from@x.test", arrival=1790000000.0, warn_time=1790003600.0)
    writer.complete(envelope, map(Recipient, recipients or ("to@x.test",)), ContentFlag(0))
    writer.close()
    return writer.queue_id


def path_of(queue_id: QueueId) -> Path:
    return Path("incoming", queue_id)


def deliver(queue_id: QueueId, spare: SpareFiles) -> None:
    """What agents and the queue manager do."""
    with QueueFile(str(path_of(queue_id)), writable=True) as file:
        file.mark_warned()
        for recipient in file.recipients():
            file.mark_done(recipient)
    assert spare.keep(str(path_of(queue_id)))


def test_the_next_message_gets_the_file() -> None:
    spare = SpareFiles(4)
    old = write(b"secret\r\n" * 1000)
    inode = path_of(old).stat().st_ino
    deliver(old, spare)
    new = write(b"short\r\n", supply=SpareSupply())
    info = path_of(new).stat()
    assert (info.st_ino, stat.S_IMODE(info.st_mode)) == (inode, 0o700)
    assert new != old
    assert b"secret" not in path_of(new).read_bytes()
    with QueueFile(str(path_of(new))) as file:
        file.verify(new)
        assert file.small_content() == b"Subject: x\r\n\r\nshort\r\n"
        assert [one.address for one in file.recipients()] == ["to@x.test"]
        assert file.envelope().warn_time > 0
    assert not os.listdir("spare")


def test_a_file_that_somebody_has_open_is_not_used() -> None:
    spare = SpareFiles(4)
    old = write(b"x\r\n")
    reader = open_queue_file(str(path_of(old)))
    try:
        deliver(old, spare)
        new = write(b"y\r\n", supply=SpareSupply())
        assert path_of(new).stat().st_ino != os.fstat(reader).st_ino
        assert b"x\r\n" in os.pread(reader, REUSABLE_SIZE, 0)
    finally:
        os.close(reader)
    assert not os.listdir("spare")


def grow(path: Path) -> None:
    os.truncate(path, REUSABLE_SIZE + 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def link(path: Path) -> None:
    os.link(path, "another")


def swap(path: Path) -> None:
    target = Path("target")
    target.write_bytes(b"not mine")
    path.unlink()
    path.symlink_to(target.resolve())


def queue_up(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [grow, empty, link, swap, queue_up])
def test_a_file_that_is_not_as_it_was_left_is_not_used(spoil: Callable[[Path], None]) -> None:
    spare = SpareFiles(4)
    deliver(write(b"x\r\n"), spare)
    (left,) = Path("spare").iterdir()
    spoil(left)
    new = write(b"y\r\n", supply=SpareSupply())
    with QueueFile(str(path_of(new))) as file:
        assert file.small_content() == b"Subject: x\r\n\r\ny\r\n"
    target = Path("target")
    assert not target.exists() or target.read_bytes() == b"not mine"


class Overtaken(SpareSupply):
    """The queue manager puts another file in the place of the one that was taken."""

    def take(self) -> NewFile | None:
        file = super().take()
        if file is not None:
            Path("other").write_bytes(b"another message's")
            os.rename("other", file.path)
        return file


def test_a_file_that_was_replaced_meanwhile_is_not_used() -> None:
    spare = SpareFiles(4)
    deliver(write(b"x\r\n"), spare)
    new = write(b"y\r\n", supply=Overtaken())
    with QueueFile(str(path_of(new))) as file:
        file.verify(new)
    assert os.listdir("incoming") == [new]


def test_a_file_that_another_process_took_is_not_used() -> None:
    spare, one, two = SpareFiles(4), SpareSupply(), SpareSupply()
    for _ in range(2):
        deliver(write(b"x\r\n"), spare)
    first = write(b"1\r\n", supply=one)  # which has seen both
    second = write(b"2\r\n", supply=two)
    assert not os.listdir("spare")
    third = write(b"3\r\n", supply=one)
    assert sorted(os.listdir("incoming")) == sorted([first, second, third])


def test_their_number_is_bounded() -> None:
    spare = SpareFiles(3)
    for _ in range(7):
        deliver(write(b"x\r\n"), spare)
    assert len(os.listdir("spare")) == 3
    spare.empty()
    assert not os.listdir("spare")


def test_some_are_not_kept_for_the_sake_of_other_inodes() -> None:
    spare = SpareFiles(100)
    kept = [spare.keep(str(path_of(write(b"x\r\n")))) for _ in range(64)]
    assert kept.count(False) == 8


def test_without_a_directory_nothing_is_kept() -> None:
    os.rmdir("spare")
    spare, old = SpareFiles(3), write(b"x\r\n")
    assert not spare.keep(str(path_of(old)))
    spare.empty()
    assert SpareSupply().take() is None
    assert path_of(old).exists()
    assert not SpareFiles(0).possible


def test_a_large_file_has_no_checksum_and_is_not_reusable() -> None:
    large = write(b"x" * 78 * 1000 + b"\r\n")
    with QueueFile(str(path_of(large))) as file:
        assert not file.preamble.reusable
        file.verify(large)


def test_what_changes_during_delivery_is_no_part_of_the_checksum() -> None:
    queue_id = write(b"x\r\n", "a@x.test", "b@x.test", "c@x.test")
    with QueueFile(str(path_of(queue_id)), writable=True) as file:
        file.mark_warned()
        file.mark_done(list(file.recipients())[1])
    with QueueFile(str(path_of(queue_id))) as file:
        file.verify(queue_id)
        with pytest.raises(QueueFileCorrupt):
            file.verify(QueueId(f"{queue_id}x"))


def test_after_a_power_failure_only_whole_files_are_what_their_names_say() -> None:
    """Whatever part of the new file's sectors is on disk, and whichever name."""
    spare = SpareFiles(4)
    old = write(b"old\r\n" * 300, "a@x.test", "b@x.test")
    with QueueFile(str(path_of(old)), writable=True) as file:
        for recipient in file.recipients():
            file.mark_done(recipient)
    before = path_of(old).read_bytes()
    assert spare.keep(str(path_of(old)))
    new = write(b"new\r\n" * 350, "c@x.test", supply=SpareSupply())
    after = path_of(new).read_bytes()
    sectors = -(-max(len(before), len(after)) // SECTOR)
    size = sectors * SECTOR
    pieces = [
        [content.ljust(size, b"\0")[at : at + SECTOR] for at in range(0, size, SECTOR)]
        for content in (before, after)
    ]
    for choice in itertools.product((0, 1), repeat=sectors):
        mixed = b"".join(pieces[kind][at] for at, kind in enumerate(choice))
        for length in {len(before), len(after)}:
            content = mixed[:length]
            Path("mixed").write_bytes(content)
            wanted = [old] * content.startswith(before) + [new] * content.startswith(after)
            assert [name for name in (old, new) if is_whole(name)] == wanted


def is_whole(queue_id: QueueId) -> bool:
    try:
        with QueueFile("mixed") as file:
            file.verify(queue_id)
    except QueueFileCorrupt:
        return False
    return True
