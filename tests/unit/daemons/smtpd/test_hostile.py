"""Any bytes at all: the session answers or ends, and nothing breaks."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.daemons.smtpd.fakes import Instance, running

PIECES = [
    b"EHLO x\r\n",
    b"MAIL FROM:<a@b.org>\r\n",
    b"MAIL FROM:<",
    b"RCPT TO:<alice@example.test>\r\n",
    b"RCPT TO:<x@other.test> NOTIFY=NEVER\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\n",
    b"BDAT 3 LAST\r\n",
    b".\r\n",
    b"VRFY \xff\r\n",
    b"RSET\r\n",
    b"\0\r\n",
    b"\r\n",
    b"x" * 3000,
    b"\n.\n",
    b"NOOP\n",
]
SETTINGS = """
smtpd_forbid_unauth_pipelining = no
smtpd_forbid_bare_newline_exclusions =
smtpd_hard_error_limit = 100
"""


async def _answers(instance: Instance, stream: bytes) -> bytes:
    reader, writer = await instance.connect()
    writer.write(stream)
    writer.write_eof()
    answers = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answers


def test_any_stream_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    @given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=40)), max_size=20))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(pieces: list[bytes]) -> None:
        async def run() -> None:
            async with running(tmp_path, SETTINGS) as instance:
                answers = await _answers(instance, b"".join(pieces))
                assert answers.startswith(b"220 ")
                assert all(line[:3].isdigit() for line in answers.split(b"\r\n")[:-1])
                await asyncio.wait_for(instance.runtime.session_over.wait(), 60)
                mail = instance.mail
                assert not [line for line in mail.log if "panic" in line]

        asyncio.run(run())

    check()
