"""postsuper --import of the queue directory itself."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from commands.postsuper.importing import ImportParams, Tally
from commands.postsuper.in_place import import_in_place
from libmail.privileges import Identity
from libmail.queue.directory import QUEUES, QueueDirectory
from libmail.queue.file import QueueFile
from libmail.service.master_lock import LockHeld, open_lock

FILES: Final = Path(__file__).parents[2] / "libmail/queue/foreign"
DIRECTORY: Final = QueueDirectory()
PARAMS: Final = ImportParams(
    cleanup_replace_stray_cr_lf=True,
    enable_long_queue_ids=False,
    remote_header_rewrite_domain="",
)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A queue as an original leaves it, which is the working directory."""
    for name in (*QUEUES, "pid", "etc"):
        (tmp_path / name).mkdir()
    add(tmp_path / "deferred/E/EC17D21E004", "dsn")
    add(tmp_path / "maildrop/1ADF121EC61", "maildrop")
    (tmp_path / "defer/E").mkdir()
    shutil.copy(FILES / "dsn.defer", tmp_path / "defer/E/EC17D21E004")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add(path: Path, sample: str) -> None:
    path.parent.mkdir(exist_ok=True)
    shutil.copy(FILES / sample, path)
    path.chmod(0o700)


def run() -> Tally:
    owner = Identity("me", os.getuid(), os.getgid(), (os.getgid(),))
    return import_in_place(DIRECTORY, PARAMS, owner, privileged=False)


def senders(name: str) -> list[str]:
    found = []
    for entry in DIRECTORY.scan(name):
        with QueueFile(entry.path) as file:
            found.append(file.envelope().sender)
    return found


def test_all_is_imported_and_nothing_is_left(queue: Path) -> None:
    maildrop = (queue / "maildrop/1ADF121EC61").read_bytes()
    assert run() == Tally(imported=1)
    assert senders("deferred") == ["a@x.test"]
    assert len(list(DIRECTORY.scan("defer"))) == 1
    assert (queue / "maildrop/1ADF121EC61").read_bytes() == maildrop
    assert (queue / "etc/resolv.conf").exists()
    assert not (queue / "original").exists()
    assert not (queue / "import").exists()


def test_a_queue_of_ours_is_left_alone(queue: Path) -> None:
    run()
    before = sorted(queue.rglob("*"))
    assert run() == Tally()
    assert sorted(queue.rglob("*")) == before


def test_what_is_damaged_stays(queue: Path) -> None:
    """A second run looks at it again, and not at what was made meanwhile."""
    add(queue / "hold/EFBA421EC82", "dsn")
    with (queue / "hold/EFBA421EC82").open("r+b") as file:
        file.truncate(200)
    assert run() == Tally(imported=1, failed=1)
    assert (queue / "original/hold/EFBA421EC82").exists()
    (queue / "trace/0123456").write_text("ours")
    assert run() == Tally(known=1, failed=1)
    assert (queue / "trace/0123456").exists()
    assert senders("deferred") == ["a@x.test"]


def test_an_interrupted_run_is_finished(queue: Path) -> None:
    (queue / "original").mkdir()
    (queue / "hold").rename(queue / "original/hold")
    assert run() == Tally(imported=1)
    assert (queue / "hold").is_dir()
    assert not (queue / "original").exists()


def test_directories_of_a_lower_layer(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There overlayfs renames files, but no directories."""
    rename = os.rename

    def overlay(old: str, new: str) -> None:
        if os.path.isdir(old) and "original" not in old:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), old)
        rename(old, new)

    monkeypatch.setattr(os, "rename", overlay)
    assert run() == Tally(imported=1)
    assert senders("deferred") == ["a@x.test"]
    assert not (queue / "original").exists()


def test_not_while_a_master_runs(queue: Path) -> None:
    lock = open_lock("pid/master.pid")
    try:
        with pytest.raises(LockHeld):
            run()
    finally:
        os.close(lock)
    assert not (queue / "original").exists()
