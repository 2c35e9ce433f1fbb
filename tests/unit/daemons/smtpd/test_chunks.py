"""BDAT in any order: what is queued is what was sent, whole, or nothing."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemons.smtpd.session import Session
from daemons.smtpd.verbs import VERBS
from libmail.lookup.facts import Client
from tests.unit.daemons.smtpd.fakes import running
from tests.unit.daemons.smtpd.test_verbs import Caller

LIMIT = 24
SETTINGS = f"""
message_size_limit = {LIMIT}
smtpd_forbid_unauth_pipelining = no
smtpd_hard_error_limit = 1000
smtpd_junk_command_limit = 1000
"""
STEPS = st.one_of(
    st.sampled_from(
        ["MAIL FROM:<a@b.org>", "RCPT TO:<alice@example.test>", "RSET", "NOOP", "DATA"]
    ),
    st.tuples(st.binary(max_size=9).map(lambda data: data.replace(b"\n", b"x")), st.booleans()),
)
"""Content without line ends: a bare one grows, and with it a message that is just small enough."""


class Model:
    """What a server has to say, by RFC 3030 and the manual. queued: contents of messages."""

    def __init__(self) -> None:
        self.queued: list[bytes] = []
        self.discarded = 0
        self.gone = False
        self.reset()

    def reset(self) -> None:
        self.mail = self.rcpt = False
        self.chunks: list[bytes] | None = None
        self.refused = False

    def command(self, line: str) -> None:
        if line == "RSET":
            self.reset()
        elif line.startswith("MAIL") and not self.mail and self.chunks is None:
            self.mail = True
        elif line.startswith("RCPT") and self.mail and self.chunks is None:
            self.rcpt = True

    def chunk(self, data: bytes, *, last: bool) -> None:
        first = self.chunks is None
        chunks = self.chunks = self.chunks or []
        if first:
            self.discarded = 0
        size = sum(map(len, chunks)) + len(data)
        if (not data and not last) or not self.rcpt or size > LIMIT:
            self.refused = True
        if self.refused:
            self.discarded += len(data)
            self.gone = self.discarded > LIMIT
        else:
            chunks.append(data)
        if last:
            content = b"".join(chunks)
            closed = len(content) + 2 * bool(content)  # the last line is given its end
            if not self.refused and closed <= LIMIT:
                self.queued.append(content)
            self.reset()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def _queued(folder: Path, stream: bytes) -> list[int]:
    """The sizes that the replies to a stream of commands name."""
    caller = Caller(stream)
    async with running(folder, SETTINGS) as instance:
        await Session(instance.server, caller, VERBS, Client("127.0.0.1")).run()
        sizes = [
            int(line.split()[3])
            for line in caller.replies.decode().splitlines()
            if " bytes queued as " in line
        ]
        assert len(instance.mail.messages) == len(sizes)
        return sizes


def test_all_or_nothing(tmp_path: Path) -> None:
    @given(st.lists(STEPS, max_size=30))
    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(steps: list[str | tuple[bytes, bool]]) -> None:
        model, stream = Model(), b""
        for step in ("MAIL FROM:<a@b.org>", "RCPT TO:<alice@example.test>", *steps):
            if isinstance(step, str):
                if step == "DATA" and model.rcpt and model.chunks is None:
                    continue  # its content would follow
                model.command(step)
                stream += step.encode() + b"\r\n"
            else:
                data, last = step
                stream += b"BDAT %d%s\r\n%s" % (len(data), b" LAST" if last else b"", data)
                model.chunk(data, last=last)
            if model.gone:
                break
        assert asyncio.run(_queued(tmp_path, stream)) == [len(one) for one in model.queued]

    check()
