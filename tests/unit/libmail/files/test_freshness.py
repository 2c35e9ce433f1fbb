"""Which files a process would read anew."""

import os
from pathlib import Path

from libmail.files.freshness import outdated, read_source


def read(path: Path) -> str:
    with read_source(str(path)) as file:
        return file.read()


def test_a_text_that_was_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "access"
    path.write_text("a OK\n")
    assert read(path) == "a OK\n"
    assert outdated() == ""
    os.utime(path, ns=(1, 1))
    assert outdated() == str(path)


def test_a_text_that_was_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "access", tmp_path / "other"
    path.write_text("a OK\n")
    other.write_text("b OK\n")
    read(path)
    other.rename(path)
    assert outdated() == str(path)


def test_what_is_no_file_has_no_date() -> None:
    with read_source("/dev/null") as file:
        assert file.read() == ""
    assert outdated() == ""
