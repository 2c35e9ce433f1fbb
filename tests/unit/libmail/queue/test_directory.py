"""Walks over the queue directories."""

import os
from pathlib import Path

import pytest

from libmail.log import LOG
from libmail.queue.directory import QueueDirectory

QUEUE = QueueDirectory(frozenset({"deferred"}), 1)


def test_a_folder_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/test")
    for folder, name in (("A", "AAAAAA1"), ("B", "BBBBBB2"), ("C", "CCCCCC3")):
        Path("deferred", folder).mkdir(parents=True)
        Path("deferred", folder, name).touch()
    broken = Path("deferred/B")
    real = os.scandir

    def scandir(path: str) -> object:
        if path == str(broken):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("libmail.queue.directory.os.scandir", scandir)
    assert sorted(entry.name for entry in QUEUE.scan("deferred")) == ["AAAAAA1", "CCCCCC3"]
    assert logged == ["warning: scan deferred/B: Permission denied"]
