"""postlogd: lines into the file, also after the file has been moved away."""

import asyncio
import fcntl
import os
import termios
import time
from pathlib import Path
from typing import cast

from daemons.postlogd import LogFile, Writer
from libmail.log.batch import encode_batch
from libmail.log.setup import open_maillog
from libmail.service.skeleton import Runtime
from tests.unit.waiting import until


class FakeRuntime:
    def __init__(self) -> None:
        self.retired = False

    def retire(self) -> None:
        self.retired = True


def writer(path: Path) -> tuple[Writer, LogFile, FakeRuntime]:
    runtime = FakeRuntime()
    file = LogFile(str(path), 0o640, open_maillog(str(path), 0o640))
    return Writer(file, cast(Runtime, runtime)), file, runtime


def test_a_datagram_is_one_line(tmp_path: Path) -> None:
    async def test() -> None:
        log, file, _ = writer(tmp_path / "maillog")
        for line in (b"first\n", b"second", b"third\nNov 22 forged\n"):
            log.receive(line, False)
        await log.drain()
        text = (tmp_path / "maillog").read_text()
        assert text == "first\nsecond\nthird?Nov 22 forged\n"
        os.close(file.fd)

    asyncio.run(test())


def test_lines_of_several_processes_are_put_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        log, file, _ = writer(tmp_path / "maillog")
        now = time.time_ns()
        log.receive(encode_batch([(now + 3, "three"), (now + 5, "five")]), True)
        log.receive(encode_batch([(now + 2, "two"), (now + 4, "four")]), True)
        assert (tmp_path / "maillog").read_text() == ""
        await until(lambda: (tmp_path / "maillog").read_text().count("\n") >= 4)
        assert (tmp_path / "maillog").read_text() == "two\nthree\nfour\nfive\n"
        os.close(file.fd)

    asyncio.run(test())


def test_only_the_mail_system_may_send_batches(tmp_path: Path) -> None:
    async def test() -> None:
        log, file, _ = writer(tmp_path / "maillog")
        log.receive(encode_batch([(1, "one"), (2, "two")]), False)
        await log.drain()
        assert (tmp_path / "maillog").read_text().count("\n") == 1
        os.close(file.fd)

    asyncio.run(test())


def test_a_moved_file_is_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "maillog"
        log, file, runtime = writer(path)
        path.rename(tmp_path / "old")
        log.receive(b"after", True)
        await log.drain()
        assert (tmp_path / "old").read_text() == ""
        assert path.read_text() == "after\n"
        assert path.stat().st_mode & 0o777 == 0o640
        assert not runtime.retired
        os.close(file.fd)

    asyncio.run(test())


def test_without_the_right_to_that_it_retires_and_loses_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "maillog"
        log, file, runtime = writer(path)
        path.rename(tmp_path / "old")
        path.mkdir()  # cannot be opened for writing, by nobody
        log.receive(b"after", True)
        await log.drain()
        assert runtime.retired
        assert (tmp_path / "old").read_text() == "after\n"
        os.close(file.fd)

    asyncio.run(test())


def readable(fd: int) -> int:
    """Octets that can be read now."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")


def test_a_slow_reader_of_standard_output_gets_every_line() -> None:
    async def test() -> None:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        log = Writer(LogFile("", 0, writing), cast(Runtime, FakeRuntime()))
        for _ in range(3000):
            log.receive(b"x" * 99, True)
        got = 0
        async with asyncio.timeout(60):
            while got < 300_000:
                await asyncio.sleep(0.01)
                got += len(os.read(reading, waiting)) if (waiting := readable(reading)) else 0
        os.close(reading)
        os.close(writing)

    asyncio.run(test())
