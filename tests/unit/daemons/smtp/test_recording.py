"""notify_classes: what the postmaster is told of sessions with servers."""

import asyncio
from pathlib import Path

import pytest

from libmail.ipc.messages import DeliverFlag
from tests.unit.daemons.smtp.bench import CLOSE, EHLO, PLAIN_EHLO, Bench, Server
from tests.unit.libmail.clients.fakes import FakeCleanup


def run(bench: Bench, server: Server, *deliveries: str, sender: str = "a@example.org") -> None:
    async def main() -> None:
        async with server:
            for recipient in deliveries or ("b@example.org",):
                flags = int(DeliverFlag.KEEP) if len(deliveries) > 1 else 0
                delivery = bench.delivery(
                    f"[127.0.0.1]:{server.port}", (recipient,), sender=sender, flags=flags
                )
                await bench.run(delivery)
            bench.client.cache.close()
            await server.all_sessions_end()

    asyncio.run(main())


def transcript(cleanup: FakeCleanup) -> list[str]:
    text = cleanup.messages[-1].content.decode()
    lines = text.partition("Transcript of session follows.\r\n\r\n")[2].split("\r\n")
    return lines[: lines.index("")]


BROKEN = [
    ("CONNECT", "501 5.5.0 what"),
    ("MAIL", "501 5.1.7 bad"),
    ("MAIL", "640 what"),
    ("RCPT", "555 5.5.4 what"),
    ("RCPT", "350 what"),
    ("DATA", "503 5.5.1 what"),
    (".", "354 what"),
    ("MAIL", "what\r\n250 2.1.0 Ok"),
]


@pytest.mark.parametrize("ehlo", [EHLO, PLAIN_EHLO], ids=["pipelining", "plain"])
@pytest.mark.parametrize(("verb", "reply"), BROKEN)
def test_broken_protocol(tmp_path: Path, verb: str, reply: str, ehlo: str) -> None:
    bench = Bench(tmp_path, smtp_skip_5xx_greeting="no", notify_classes="protocol")
    server = Server({"EHLO": ehlo, verb: reply})
    run(bench, server)
    (message,) = bench.notices.messages
    assert message.finished
    where = f"127.0.0.1[127.0.0.1]:{server.port}"
    text = message.content.decode()
    assert f"\r\nSubject: Postfix SMTP client: errors from {where}\r\n" in text
    assert f"\r\n\r\nUnexpected response from {where}.\r\n\r\n" in text
    said = transcript(bench.notices)
    assert [f" In:  {line}" for line in reply.split("\r\n")] == [
        line for line in said if line[6:] in reply.split("\r\n")
    ]


FINE = [
    ("CONNECT", "554 5.7.1 no"),
    ("EHLO", "502 5.5.1 what"),
    ("MAIL", "451 4.3.0 later"),
    ("RCPT", "550 5.1.1 unknown"),
    ("DATA", "554 5.7.1 no"),
    (".", "521 no"),
    ("MAIL", CLOSE),
]


@pytest.mark.parametrize(("verb", "reply"), FINE)
def test_refusals_are_no_errors(tmp_path: Path, verb: str, reply: str) -> None:
    bench = Bench(tmp_path, smtp_skip_5xx_greeting="no", notify_classes="protocol")
    run(bench, Server({verb: reply}))
    assert not bench.notices.messages


@pytest.mark.parametrize("sender", ["", "double-bounce@mail.test"])
def test_no_notices_about_notices(tmp_path: Path, sender: str) -> None:
    bench = Bench(tmp_path, notify_classes="protocol")
    run(bench, Server({"MAIL": "501 5.5.4 what"}), sender=sender)
    assert not bench.notices.messages


def test_nothing_is_recorded_for_other_classes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    run(bench, Server({"MAIL": "501 5.5.4 what"}))
    assert not bench.notices.messages


def test_the_whole_session(tmp_path: Path) -> None:
    bench = Bench(tmp_path, notify_classes="protocol")
    run(bench, Server({".": "501-5.5.4 what\r\n501 5.5.4 that"}))
    said = transcript(bench.notices)
    assert said[:2] == [" In:  220 sink.test ESMTP", " Out: EHLO mail.test"]
    assert said[-4:] == [
        " Out: .", " Out: QUIT", " In:  501-5.5.4 what", " In:  501 5.5.4 that",
    ]  # fmt: skip


def test_garbage_before_the_connection_is_lost(tmp_path: Path) -> None:
    bench = Bench(tmp_path, notify_classes="protocol")
    run(bench, Server({"CONNECT": "hello\r\nthere"}, greeting_only=True))
    assert transcript(bench.notices) == [" In:  hello", " In:  there"]


def test_each_transaction_of_a_session_has_its_own_record(tmp_path: Path) -> None:
    bench = Bench(tmp_path, notify_classes="protocol")
    server = Server({"RCPT TO:<c@example.org> ORCPT=rfc822;c@example.org": "501 5.1.3 what"})
    run(bench, server, "b@example.org", "c@example.org")
    assert len(server.sessions) == 1
    assert transcript(bench.notices)[0] == " Out: RSET"


def test_data_errors(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        notify_classes="data",
        smtp_reply_filter="socketmap:unix:/nonexistent:x",
    )
    run(bench, Server())
    assert len(bench.notices.messages) == 1
