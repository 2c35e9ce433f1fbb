"""smtpd_per_request_deadline: the time limit is for a whole command, or for all of the content."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from libmail.net.channel import RequestLimit
from tests.unit.daemons.smtpd.fakes import running

SLOW = "smtpd_timeout = 2\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = {rate}\n"


def test_a_request() -> None:
    limit = RequestLimit(10.0, 100)
    limit.spend(4.0)
    limit.earn(200)
    assert limit.left == 8.0
    limit.earn(100_000)
    assert limit.left == 10.0
    limit.spend(99.0)
    assert limit.left == 0.0
    limit.begin()
    assert limit.left == 10.0


async def trickle(folder: Path, settings: str, start: bytes, octet: bytes, times: int) -> bool:
    """Whether a client that sends an octet now and then takes too long."""
    async with running(folder, settings) as instance:
        reader, writer = await instance.connect()
        await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)
        writer.write(b"EHLO c.test\r\n")
        await asyncio.wait_for(reader.readuntil(b"250 "), 60)
        writer.write(start)
        if b"DATA" in start:
            await asyncio.wait_for(reader.readuntil(b"354 "), 60)
            writer.write(b"Subject: x\r\n\r\n")
        rest = asyncio.create_task(reader.read())
        for _ in range(times):
            writer.write(octet)
            done, _ = await asyncio.wait([rest], timeout=0.25)
            if done:
                break
        else:
            writer.write(b"\r\n.\r\nQUIT\r\n")
        await asyncio.wait([rest], timeout=60)
        with contextlib.suppress(ConnectionError):  # some octet came behind the end
            await rest
        writer.close()
        await asyncio.wait_for(instance.runtime.session_over.wait(), 60)
        return any("timeout after" in line for line in instance.mail.log)


MAIL = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n"
CASES = [
    ("command", b"NOOP ", SLOW.format(rate=500), True),
    ("command, each read", b"NOOP ", "smtpd_timeout = 2\n", False),
    ("content", MAIL, SLOW.format(rate=500), True),
    ("content that is fast enough", MAIL, SLOW.format(rate=1), False),
]


@pytest.mark.parametrize(
    ("start", "settings", "late"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_trickling_client(tmp_path: Path, start: bytes, settings: str, late: bool) -> None:
    assert asyncio.run(trickle(tmp_path, settings, start, b"x", 12)) is late
