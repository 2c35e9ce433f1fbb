"""Group commit: by the kernel and in threads."""

import asyncio
import errno
import os
import platform
import threading
from pathlib import Path

import pytest

from libmail.files import commit
from libmail.files.aio import KernelFsync
from libmail.files.commit import GroupCommit

WAYS = pytest.mark.parametrize("threads", [None, 1, 2])


@pytest.mark.parametrize(
    ("threads", "count"),
    [(None, 1), (None, 20), (None, 3000), (1, 1), (1, 20), (2, 20), (2, 200)],
)
def test_all_complete(tmp_path: Path, threads: int | None, count: int) -> None:
    async def run() -> None:
        group = GroupCommit(threads)
        fds = [os.open(tmp_path / str(at % 20), os.O_CREAT | os.O_WRONLY) for at in range(count)]
        try:
            assert await asyncio.gather(*(group.fsync(fd) for fd in fds)) == [None] * count
        finally:
            for fd in fds:
                os.close(fd)

    asyncio.run(run())


@WAYS
def test_errors_are_those_of_fsync(threads: int | None) -> None:
    async def run() -> None:
        group = GroupCommit(threads)
        reader, writer = os.pipe()
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                await group.fsync(reader)  # a pipe cannot be synchronized
        finally:
            os.close(reader)
            os.close(writer)
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            await group.fsync(writer)

    asyncio.run(run())


@WAYS
def test_who_waits_may_be_cancelled(tmp_path: Path, threads: int | None) -> None:
    async def run() -> None:
        group = GroupCommit(threads)
        fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
        try:
            group.fsync(fd).cancel()
            await group.fsync(fd)
        finally:
            os.close(fd)

    asyncio.run(run())


@pytest.mark.parametrize("round_", range(20))
def test_the_loop_may_end_meanwhile(tmp_path: Path, round_: int) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    before = set(threading.enumerate())

    async def run() -> None:
        GroupCommit(2).fsync(fd)

    asyncio.run(run())
    for thread in set(threading.enumerate()) - before:
        thread.join(0.05)  # until it has reported to nobody
    os.close(fd)


@WAYS
@pytest.mark.parametrize("bad", [0, 1, 70, 99])
def test_one_that_fails_stops_no_other(tmp_path: Path, threads: int | None, bad: int) -> None:
    async def run() -> list[BaseException | None]:
        group = GroupCommit(threads)
        fds = [os.open(tmp_path / str(at), os.O_CREAT | os.O_WRONLY) for at in range(100)]
        os.close(fds[bad])
        found = await asyncio.gather(*map(group.fsync, fds), return_exceptions=True)
        for fd in fds[:bad] + fds[bad + 1 :]:
            os.close(fd)
        return found

    found = asyncio.run(run())
    assert isinstance(found.pop(bad), OSError)
    assert found == [None] * 99


def test_the_file_may_be_closed_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        group = GroupCommit()
        fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
        future = group.fsync(fd)
        await asyncio.sleep(0)
        os.close(fd)
        await future

    asyncio.run(run())


def test_threads_where_the_kernel_has_no_aio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        KernelFsync()

    async def run() -> None:
        group = commit.GroupCommit()
        fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
        await group.fsync(fd)
        os.close(fd)

    asyncio.run(run())
