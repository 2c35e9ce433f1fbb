"""Maildirs: a message appears whole, or not at all."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libmail.files.commit import at_once
from libmail.mailbox.maildir import MaildirWriter


def test_deliver(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "Maildir"
    writer = MaildirWriter("host.test")
    for number in range(3):
        at_once(writer.deliver(str(folder), (b"one", str(number).encode())))
    new = sorted((folder / "new").iterdir())
    assert sorted(file.read_bytes() for file in new) == [b"one0", b"one1", b"one2"]
    assert all(re.fullmatch(r"\d+\.V[0-9a-f]+I[0-9a-f]+M\d+\.host\.test", f.name) for f in new)
    assert not list((folder / "tmp").iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_others_make_the_maildir_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, made = os.mkdir, list[str]()

    def too_late(path: str, mode: int) -> None:
        mkdir(path, mode)
        made.append(os.path.basename(path))
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    monkeypatch.setattr(os, "mkdir", too_late)
    at_once(MaildirWriter("h").deliver(str(tmp_path / "deep/Maildir"), (b"x",)))
    assert made == ["deep", "Maildir", "cur", "new", "tmp"]
    assert len(list((tmp_path / "deep/Maildir/new").iterdir())) == 1


def test_size_limit(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="error writing message: File too large"):
        at_once(MaildirWriter("h", size_limit=4).deliver(str(tmp_path / "m"), (b"12", b"345")))
    assert not list((tmp_path / "m/tmp").iterdir())
    assert not list((tmp_path / "m/new").iterdir())


def test_cannot_create(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(OSError, match=r"create maildir file .*/m/tmp/\d+\.P\d+Q\d+\.h: Not a dir"):
        at_once(MaildirWriter("h").deliver(str(tmp_path / "m"), (b"x",)))


def test_threads_deliver_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in the same second: none takes the file of another for one that a crash has left."""
    monkeypatch.setattr(time, "time", lambda: 1.0)
    started, writer = threading.Barrier(4), MaildirWriter("h")

    def pieces(number: int) -> Iterator[bytes]:
        started.wait()  # the files of all are there
        yield str(number).encode()

    def deliver(number: int) -> None:
        at_once(writer.deliver(str(tmp_path / "m"), pieces(number)))

    (tmp_path / "m").mkdir()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(deliver, range(4)))
    found = sorted(path.read_bytes() for path in (tmp_path / "m/new").iterdir())
    assert found == [b"0", b"1", b"2", b"3"]
