"""What a session leaves behind is freed at once: garbage in circles would wait for the collector,
and every session would work in cold memory meanwhile."""

import asyncio
import gc
from pathlib import Path

import pytest

from daemons.smtpd.intake import Intake
from daemons.smtpd.session import Session
from daemons.smtpd.transaction import Transaction
from daemons.smtpd.verbs import VERBS
from libmail.lookup.facts import Client
from tests.unit.daemons.smtpd.fakes import running
from tests.unit.daemons.smtpd.test_fairness import TRANSACTION, UNLIMITED, Flood

MESSAGE = TRANSACTION + b"DATA\r\nSubject: x\r\n\r\ny\r\n.\r\n"
SESSIONS = {
    "messages": MESSAGE * 2,
    "chunks": TRANSACTION + b"BDAT 6 LAST\r\nx: y\r\n",
    "content that breaks off": TRANSACTION + b"DATA\r\nSubject: x\r\n\r\n" + b"y" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("data", SESSIONS.values(), ids=SESSIONS)
def test_nothing_waits_for_the_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.chdir(tmp_path)

    async def run() -> None:
        async with running(tmp_path, UNLIMITED) as instance:
            client = Flood(b"EHLO x\r\n" + data)
            gc.collect()
            gc.disable()
            try:
                await Session(instance.server, client, VERBS, Client("127.0.0.1")).run()
                kinds = (Session, Transaction, Intake)
                left = [type(one).__name__ for one in gc.get_objects() if type(one) in kinds]
            finally:
                gc.enable()
            complete = data.count(b"\r\n.\r\n") + data.count(b"LAST")
            assert sum(bool(mail.content) for mail in instance.mail.messages) == complete
            assert not left

    asyncio.run(run())
