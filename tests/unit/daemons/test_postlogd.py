"""postlogd: lines into the file, also after the file has been moved away."""

import asyncio
import fcntl
import os
import re
import termios
import time
from pathlib import Path
from typing import cast

import pytest

from daemons.postlogd import LogFile, UserLines, Writer
from libmail.log.batch import encode_batch
from libmail.log.setup import open_maillog
from libmail.service.skeleton import Runtime
from tests.unit.waiting import until


class FakeRuntime:
    def __init__(self) -> None:
        self.retired = False
        self.trusted = frozenset((0,))
        self.network = frozenset[int]()

    def retire(self) -> None:
        self.retired = True


SYSTEM, ALICE, BOB = 0, 2001, 2002


def users() -> UserLines:
    return UserLines("postfix", json_format=False)


def writer(path: Path) -> tuple[Writer, LogFile, FakeRuntime]:
    runtime = FakeRuntime()
    file = LogFile(str(path), 0o640, open_maillog(str(path), 0o640))
    return Writer(file, cast(Runtime, runtime), users()), file, runtime


def test_a_datagram_is_one_line(tmp_path: Path) -> None:
    async def test() -> None:
        log, file, _ = writer(tmp_path / "maillog")
        for line in (b"first\n", b"second", b"third\nNov 22 forged\n"):
            log.receive(line, SYSTEM)
        await log.drain()
        text = (tmp_path / "maillog").read_text()
        assert text == "first\nsecond\nthird?Nov 22 forged\n"
        os.close(file.fd)

    asyncio.run(test())


def test_lines_of_several_processes_are_put_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        log, file, _ = writer(tmp_path / "maillog")
        now = time.time_ns()
        log.receive(encode_batch([(now + 3, "three"), (now + 5, "five")]), SYSTEM)
        log.receive(encode_batch([(now + 2, "two"), (now + 4, "four")]), SYSTEM)
        assert (tmp_path / "maillog").read_text() == ""
        await until(lambda: (tmp_path / "maillog").read_text().count("\n") >= 4)
        assert (tmp_path / "maillog").read_text() == "two\nthree\nfour\nfive\n"
        os.close(file.fd)

    asyncio.run(test())


def received(tmp_path: Path, *datagrams: tuple[bytes, int]) -> list[str]:
    async def test() -> None:
        log, file, _ = writer(tmp_path / "maillog")
        for data, uid in datagrams:
            log.receive(data, uid)
        await log.drain()
        os.close(file.fd)

    asyncio.run(test())
    return (tmp_path / "maillog").read_text().splitlines()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (
            b"Nov 30 12:00:00 mx postfix/smtpd[1]: warning: x[1.2.3.4]: SASL",
            "warning: x[1.2.3.4]: SASL",
        ),
        (b"2026-11-30T12:00:00.1+00:00 mx postfix/smtpd[1]: fatal: no", "fatal: no"),
        (b"two\nlines\x1b[2J \xff\n", "two?lines?[2J \ufffd"),
        (encode_batch([(1, "one"), (2, "two")]), "?0000000000000000001one?0000000000000000002two"),
        (b"", ""),
    ],
)
def test_users_are_shown_as_such(tmp_path: Path, data: bytes, shown: str) -> None:
    (line,) = received(tmp_path, (data, ALICE))
    assert re.fullmatch(r"\w{3} [ \d]\d [\d:]{8} \S+ postfix/postlog\[\d+\]: uid=2001: (.*)", line)
    assert line.endswith(f"uid=2001: {shown}")


def test_a_user_has_so_many_lines(tmp_path: Path) -> None:
    lines = received(tmp_path, *[(b"x", ALICE)] * 5000, (b"y", BOB))
    assert len(lines) == 101
    assert lines[-1].endswith("uid=2002: y")


def test_a_moved_file_is_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "maillog"
        log, file, runtime = writer(path)
        path.rename(tmp_path / "old")
        log.receive(b"after", SYSTEM)
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
        log.receive(b"after", SYSTEM)
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
        log = Writer(LogFile("", 0, writing), cast(Runtime, FakeRuntime()), users())
        for _ in range(3000):
            log.receive(b"x" * 99, SYSTEM)
        got = 0
        async with asyncio.timeout(60):
            while got < 300_000:
                await asyncio.sleep(0.01)
                got += len(os.read(reading, waiting)) if (waiting := readable(reading)) else 0
        os.close(reading)
        os.close(writing)

    asyncio.run(test())
