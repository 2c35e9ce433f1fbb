"""What is approved reaches processes that were forked before, and tells them what has changed."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from libmail.files.approved import ApprovedFiles

KEY = ("RSA", "/c", "/k")
OLD, NEW, NEWER = (b"c1", b"k1"), (b"c2", b"k2\xff\n"), (b"c3", b"k3")


def in_child(work: Callable[[], bool]) -> bool:
    """Whether it is so in a process that is forked now."""
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(child, 0)[1] == 0


def test_other_processes_see_it() -> None:
    approved = ApprovedFiles()
    assert approved.contents() == {}

    def write() -> bool:
        approved.replace({KEY: OLD, ("", "/x"): (b"",)})
        return True

    assert in_child(write)
    assert approved.contents() == {KEY: OLD, ("", "/x"): (b"",)}
    approved.replace({KEY: NEW})  # shorter than what was there
    assert in_child(lambda: approved.contents() == {KEY: NEW})


def test_a_change_is_noticed_without_the_contents() -> None:
    approved = ApprovedFiles()
    approved.use(KEY, OLD)  # read by itself, before anything was approved
    approved.forget_contents()
    other = ApprovedFiles()
    assert approved.replaced == other.replaced == ""
    other.use(KEY, OLD)
    other.replace({KEY: OLD})
    assert other.replaced == ""
    other.replace({KEY: NEW})
    assert other.replaced == "/c"
    other.use(KEY, NEW)
    assert other.replaced == ""
    other.replace({})
    assert other.replaced == ""


def test_what_is_newer_than_what_was_approved_stays_in_use() -> None:
    approved = ApprovedFiles()
    approved.replace({KEY: OLD})
    approved.use(KEY, NEW)
    assert approved.replaced == ""  # tablewatch will come to it
    approved.replace({KEY: NEW})
    assert approved.replaced == ""
    approved.replace({KEY: OLD})
    assert approved.replaced == "/c"  # somebody has gone back
    approved.use(KEY, NEW)
    approved.replace({KEY: NEWER})
    assert approved.replaced == "/c"


def test_a_writer_that_died_half_way_leaves_nothing() -> None:
    approved = ApprovedFiles()
    approved.replace({KEY: OLD})
    os.pwrite(approved._fd, b"x", 40)
    assert approved.contents() == {}


def test_it_has_a_limit() -> None:
    approved = ApprovedFiles()
    with pytest.raises(ValueError, match="too many"):
        approved.replace({("", str(number)): (b"",) for number in range(5000)})
