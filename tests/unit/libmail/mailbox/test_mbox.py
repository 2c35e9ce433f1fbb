"""mbox files: what is appended, what is refused, and that nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from libmail.files.commit import at_once
from libmail.mailbox.mbox import (
    LockTimeout,
    MailboxTooLarge,
    MboxLocking,
    NotMailbox,
    NotOwner,
    append_to_mbox,
    locked_mbox,
)

ALL = MboxLocking(("flock", "dotlock"), attempts=2, delay=0.01)


def test_append(tmp_path: Path) -> None:
    path = tmp_path / "box"
    at_once(append_to_mbox(str(path), (b"one", b"two"), ALL))
    at_once(append_to_mbox(str(path), (b"three",), ALL, owner=os.geteuid()))
    assert path.read_bytes() == b"onetwothree"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["box"]


def test_size_limit_takes_back(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_bytes(b"12345")
    with pytest.raises(MailboxTooLarge) as caught:
        at_once(append_to_mbox(str(path), (b"12", b"3456"), ALL, size_limit=10))
    assert caught.value.strerror == "error writing message: File too large"
    assert path.read_bytes() == b"12345"
    assert os.listdir(tmp_path) == ["box"]


def test_broken_content_takes_back(tmp_path: Path) -> None:
    def broken() -> object:
        yield b"half"
        raise RuntimeError

    path = tmp_path / "box"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        at_once(append_to_mbox(str(path), broken(), ALL))  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"


def test_dotlock_of_others(tmp_path: Path) -> None:
    path, lock = tmp_path / "box", tmp_path / "box.lock"
    lock.touch()
    with pytest.raises(LockTimeout) as caught:
        at_once(append_to_mbox(str(path), (b"x",), ALL))
    assert caught.value.strerror == f"unable to create lock file {lock}: File exists"
    assert not path.exists()
    os.utime(lock, (1, 1))
    at_once(append_to_mbox(str(path), (b"x",), ALL))
    assert os.listdir(tmp_path) == ["box"]


def test_kernel_lock_of_others(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.touch()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LockTimeout, match="unable to lock for exclusive access"):
            at_once(append_to_mbox(str(path), (b"x",), ALL))
    assert os.listdir(tmp_path) == ["box"]


@pytest.mark.parametrize("method", ["fcntl", "flock", "dotlock"])
def test_each_lock_keeps_out_the_same_process(tmp_path: Path, method: str) -> None:
    """Several threads of it may deliver to one mailbox."""
    path, locking = str(tmp_path / "box"), MboxLocking((method,), attempts=2, delay=0.01)
    with locked_mbox(path, locking):
        os.close(os.open(path, os.O_RDONLY))  # which ends the usual fcntl locks of a process
        with pytest.raises(LockTimeout):
            at_once(append_to_mbox(path, (b"x",), locking))
    at_once(append_to_mbox(path, (b"x",), locking))


def test_waiting_before_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for one another all give up when the first one does."""
    path, pauses = str(tmp_path / "box"), list[float]()
    locking = MboxLocking(("fcntl",), attempts=2, delay=0.01)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with locked_mbox(path, locking):
        for waited, tries_again in ((0.0, True), (10.0, False)):
            with pytest.raises(LockTimeout):
                at_once(append_to_mbox(path, (b"x",), replace(locking, waited=waited)))
            assert bool(pauses) is tries_again
            pauses.clear()
    assert locking.since(time.monotonic()) == locking
    assert locking.since(time.monotonic() - 5).waited >= 5
    at_once(append_to_mbox(path, (b"x",), locking.since(time.monotonic() - 5)))


def test_fcntl_lock_of_others(tmp_path: Path) -> None:
    """The usual lock, which all other programs take."""
    path, locking = tmp_path / "box", MboxLocking(("fcntl",), attempts=2, delay=0.01)
    with path.open("ab") as other:
        fcntl.lockf(other, fcntl.LOCK_EX)
        with pytest.raises(LockTimeout):
            at_once(append_to_mbox(str(path), (b"x",), locking))


def test_not_a_mailbox(tmp_path: Path) -> None:
    folder, linked, two, fifo = (tmp_path / name for name in ("dir", "link", "two", "fifo"))
    folder.mkdir()
    with pytest.raises(OSError, match="cannot open file: Is a directory"):
        at_once(append_to_mbox(str(folder), (b"x",), ALL))
    linked.symlink_to(two)
    tmp_path.chmod(0o777)  # anybody may have made the link
    two.write_bytes(b"")
    with pytest.raises(OSError, match="file is a symbolic link"):
        at_once(append_to_mbox(str(linked), (b"x",), ALL))
    os.link(two, tmp_path / "three")
    with pytest.raises(NotMailbox, match="file has 2 hard links"):
        at_once(append_to_mbox(str(two), (b"x",), ALL))
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="cannot open file"):
        at_once(append_to_mbox(str(fifo), (b"x",), ALL))


def test_owner(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.touch()
    with pytest.raises(NotOwner) as caught:
        at_once(append_to_mbox(str(path), (b"x",), ALL, owner=os.geteuid() + 1))
    assert caught.value.strerror == f"destination {path} is not owned by recipient"


def test_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "none" / "box"
    flock = MboxLocking(("flock",))
    with pytest.raises(OSError, match="cannot create file exclusively: No such file"):
        at_once(append_to_mbox(str(path), (b"x",), flock))
    with pytest.raises(OSError, match=r"unable to create lock file .*/box\.lock: No such file"):
        at_once(append_to_mbox(str(path), (b"x",), ALL))


def test_special(tmp_path: Path) -> None:
    at_once(append_to_mbox("/dev/null", (b"x" * 100,), ALL, special=True, size_limit=10))
    path = tmp_path / "file"
    at_once(append_to_mbox(str(path), (b"x",), ALL, special=True))
    assert path.read_bytes() == b"x"


def test_reader_that_does_not_read(tmp_path: Path) -> None:
    """What does not take the message now is an error at once, whatever kind of file it is."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="cannot open file: No such device or address"):
        at_once(append_to_mbox(str(fifo), (b"x",), ALL, special=True))
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    master, terminal = pty.openpty()
    try:
        for path in (str(fifo), os.ttyname(terminal)):
            with pytest.raises(OSError, match="error writing message: Resource temp") as caught:
                at_once(
                    append_to_mbox(path, (b"x" * 1000 for _ in range(10_000)), ALL, special=True)
                )
            assert caught.value.errno == errno.EAGAIN
    finally:
        for fd in (reader, master, terminal):
            os.close(fd)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="cannot open file: No such device or address"):
            at_once(append_to_mbox(str(tmp_path / "socket"), (b"x",), ALL, special=True))
