"""smtp(8) against a server that follows a script: every phase, every way to fail."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop

from daemons.smtp.settings import Flags, load_settings
from libmail.agents.delivery import Bounced, Deferred, Delivery, Outcome, Sent
from libmail.config import open_config
from libmail.ipc.messages import DeliverFlag, DsnNotify, EnvelopeFlag, Recipient, TraceFlag
from libmail.log import LOG
from libmail.queue.file import ContentFlag
from libmail.service.pool import ServiceUnavailable
from tests.unit.daemons.smtp.bench import BODY, CLOSE, EHLO, HANG, HEADER, PLAIN_EHLO, Bench, Server

NAME = "127.0.0.1[127.0.0.1]"


@pytest.fixture
def logged() -> list[str]:
    lines: list[str] = []
    LOG.open(lambda severity, head, text: lines.append(text), "postfix/smtp")
    return lines


def deliver(bench: Bench, server: Server, **values: Any) -> tuple[Delivery, dict[str, Outcome]]:
    async def main() -> tuple[Delivery, dict[str, Outcome]]:
        async with server:
            delivery = bench.delivery(f"[127.0.0.1]:{server.port}", **values)
            outcomes = await bench.run(delivery)
            await server.all_sessions_end()
            return delivery, outcomes

    return asyncio.run(main())


def one(bench: Bench, server: Server, **values: Any) -> Outcome:
    _, outcomes = deliver(bench, server, **values)
    assert len(outcomes) == 1
    return next(iter(outcomes.values()))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sent(tmp_path: Path, loop: str) -> None:
    server = Server()
    policy = uvloop.EventLoopPolicy() if loop == "uvloop" else None
    asyncio.set_event_loop_policy(policy)
    try:
        outcome = one(Bench(tmp_path), server)
    finally:
        asyncio.set_event_loop_policy(None)
    assert isinstance(outcome, Sent)
    assert outcome.reason == outcome.diag_text == "250 2.0.0 Ok: queued as 1"
    assert outcome.dsn == "2.0.0"
    assert outcome.relay == f"{NAME}:{server.port}"
    assert server.contents == [HEADER + BODY]
    verbs = [line.split()[0] for line in server.sessions[0]]
    assert verbs == ["EHLO", "MAIL", "RCPT", "DATA", ".", "QUIT"]


# Phase, script for it (%s: what it does), words for "while", "in reply to" words, site failure.
PHASES = [
    ("CONNECT", "receiving the initial server greeting", ""),
    ("EHLO", "performing the EHLO handshake", ""),
    ("MAIL", "sending MAIL FROM", "MAIL FROM command"),
    ("RCPT", "sending RCPT TO", "RCPT TO command"),
    ("DATA", "sending DATA command", "DATA command"),
    (
        ".",
        "sending end of data -- message may be sent more than once",
        "end of DATA command",
    ),
]
PIPELINING = pytest.mark.parametrize("ehlo", [EHLO, PLAIN_EHLO], ids=["pipelining", "plain"])
STAGES = pytest.mark.parametrize(
    ("verb", "doing", "command"), PHASES, ids=[phase[0] for phase in PHASES]
)


@PIPELINING
@STAGES
def test_lost_connection(tmp_path: Path, verb: str, doing: str, command: str, ehlo: str) -> None:
    delivery, outcomes = deliver(Bench(tmp_path), Server({"EHLO": ehlo, verb: CLOSE}))
    outcome = outcomes["b@example.org"]
    assert isinstance(outcome, Deferred)
    assert outcome.reason == f"lost connection with {NAME} while {doing}"
    assert outcome.dsn == delivery.destination_dsn == "4.4.2"


@STAGES
def test_timeout(tmp_path: Path, verb: str, doing: str, command: str) -> None:
    outcome = one(Bench(tmp_path, limit=0.5), Server({verb: HANG}))
    assert isinstance(outcome, Deferred)
    assert outcome.reason == f"conversation with {NAME} timed out while {doing}"
    assert outcome.dsn == "4.4.2"


def test_greeting_has_a_shorter_limit_than_connecting(tmp_path: Path) -> None:
    bench = Bench(tmp_path, smtp_helo_timeout="1", smtp_connect_timeout="30")
    started = time.monotonic()
    outcome = one(bench, Server({"CONNECT": HANG}))
    assert "timed out while receiving the initial server greeting" in outcome.reason
    assert time.monotonic() - started < 25


@PIPELINING
@pytest.mark.parametrize("kind", ["4", "5"])
@STAGES
def test_refused(tmp_path: Path, verb: str, doing: str, command: str, kind: str, ehlo: str) -> None:
    reply = f"{kind}50 {kind}.7.9 no"
    server = Server({"EHLO": ehlo, verb: reply, "HELO": reply})
    bench = Bench(tmp_path, smtp_skip_5xx_greeting="no")
    delivery, outcomes = deliver(bench, server)
    outcome = outcomes["b@example.org"]
    assert isinstance(outcome, Deferred if kind == "4" else Bounced)
    assert outcome.dsn == f"{kind}.7.9"
    if command:
        assert outcome.reason == f"host {NAME} said: {reply} (in reply to {command})"
        assert not delivery.destination_dsn
    else:
        assert outcome.reason == f"host {NAME} refused to talk to me: {reply}"
        assert delivery.destination_dsn == ("4.7.9" if kind == "4" else "")
    assert outcome.mta == "127.0.0.1"
    assert outcome.diag_text == reply


@STAGES
def test_garbage(tmp_path: Path, verb: str, doing: str, command: str) -> None:
    """What is no reply is skipped; the reply after it counts."""
    server = Server({verb: "what is this\r\n\x00\xff\r\n250"})
    if verb in ("CONNECT", "EHLO", "MAIL", "RCPT", "."):
        assert isinstance(one(Bench(tmp_path), server), Sent)
    else:
        outcome = one(Bench(tmp_path), server)
        assert isinstance(outcome, Bounced)
        assert outcome.dsn == "5.5.0"
        assert outcome.reason.startswith("Protocol error: host ")


def test_reply_without_end(tmp_path: Path) -> None:
    outcome = one(Bench(tmp_path), Server({"MAIL": "250-more\r\n" * 20000}))
    assert isinstance(outcome, Deferred)
    assert outcome.reason == f"lost connection with {NAME} while sending MAIL FROM"


def test_skip_5xx_greeting(tmp_path: Path) -> None:
    server = Server({"CONNECT": "554 5.7.1 no"})
    outcome = one(Bench(tmp_path), server)
    assert isinstance(outcome, Deferred)
    assert (outcome.dsn, outcome.reason) == (
        "4.7.1",
        f"host {NAME} refused to talk to me: 554 5.7.1 no",
    )
    assert server.sessions == [["QUIT"]]


def test_helo_when_ehlo_is_unknown(tmp_path: Path) -> None:
    server = Server({"EHLO": "502 5.5.1 what"})
    assert isinstance(one(Bench(tmp_path), server), Sent)
    assert server.sessions[0][:3] == [
        "EHLO mail.test",
        "HELO mail.test",
        "MAIL FROM:<a@example.org>",
    ]


@PIPELINING
def test_results_by_recipient(tmp_path: Path, ehlo: str) -> None:
    server = Server(
        {
            "EHLO": ehlo.replace("250 DSN", "250 X"),
            "RCPT TO:<hard@x.test>": "550-5.1.1 no\r\n550 5.1.1 such user",
            "RCPT TO:<soft@x.test>": "450 4.2.0 later",
            "RCPT TO:<plain@x.test>": "553 no code",
        }
    )
    names = tuple(f"{name}@x.test" for name in ("hard", "ok", "plain", "soft"))
    delivery, outcomes = deliver(Bench(tmp_path), server, recipients=names)
    found = {name: (type(o), o.dsn, o.reason) for name, o in outcomes.items()}
    where = "(in reply to RCPT TO command)"
    assert found == {
        "hard@x.test": (
            Bounced, "5.1.1", f"host {NAME} said: 550-5.1.1 no 550 5.1.1 such user {where}",
        ),
        "ok@x.test": (Sent, "2.0.0", "250 2.0.0 Ok: queued as 1"),
        "plain@x.test": (Bounced, "5.0.0", f"host {NAME} said: 553 no code {where}"),
        "soft@x.test": (Deferred, "4.2.0", f"host {NAME} said: 450 4.2.0 later {where}"),
    }  # fmt: skip
    assert delivery.deferred


def test_rejected_mail_with_a_server_that_goes_on(tmp_path: Path) -> None:
    """Nobody gets the message: only the dot is sent."""
    server = Server({"MAIL": "451 4.1.8 cannot check"})
    outcome = one(Bench(tmp_path), server)
    assert outcome.reason.endswith("451 4.1.8 cannot check (in reply to MAIL FROM command)")
    assert server.contents == [b""]


def test_reset_before_quit(tmp_path: Path) -> None:
    server = Server({"DATA": "451 4.3.0 no space"})
    one(Bench(tmp_path), server)
    assert server.sessions[0][-3:] == ["DATA", "RSET", "QUIT"]


def test_connection_refused(tmp_path: Path) -> None:
    async def main() -> tuple[Delivery, dict[str, Outcome]]:
        async with Server() as server:
            pass
        bench = Bench(tmp_path)
        delivery = bench.delivery(f"[127.0.0.1]:{server.port}")
        return delivery, await bench.run(delivery)

    delivery, outcomes = asyncio.run(main())
    outcome = outcomes["b@example.org"]
    assert isinstance(outcome, Deferred)
    port = delivery.request.nexthop.rpartition(":")[2]
    assert outcome.reason == f"connect to {NAME}:{port}: Connection refused"
    assert (outcome.dsn, outcome.relay) == ("4.4.1", "none")
    assert delivery.destination_dsn == "4.4.1"


def test_next_destination_after_a_failure(tmp_path: Path) -> None:
    async def main() -> tuple[dict[str, Outcome], Server, Server]:
        bad, good = Server({"RCPT TO:<b@x.test>": "450 4.2.0 not here"}), Server()
        async with bad, good:
            bench = Bench(tmp_path)
            bad.script = {"EHLO": PLAIN_EHLO, **bad.script}
            nexthop = f"[127.0.0.1]:{bad.port}, [127.0.0.1]:{good.port}"
            delivery = bench.delivery(nexthop, recipients=("a@x.test", "b@x.test"))
            return await bench.run(delivery), bad, good

    outcomes, bad, good = asyncio.run(main())
    assert [outcome.relay for outcome in outcomes.values()] == [
        f"{NAME}:{bad.port}",
        f"{NAME}:{good.port}",
    ]
    assert all(isinstance(outcome, Sent) for outcome in outcomes.values())


def test_parameters_of_commands(tmp_path: Path) -> None:
    server = Server({"EHLO": EHLO.replace("250 DSN", "250-SMTPUTF8\r\n250 DSN")})
    recipient = Recipient("b c@x.test", "o+r=ig x@x.test", "", DsnNotify.SUCCESS | DsnNotify.DELAY)
    other = Recipient("d@x.test", "d@x.test", "rfc822;e+2Bf@x.test", DsnNotify.NEVER)
    flags = EnvelopeFlag.EIGHTBIT | EnvelopeFlag.DSN_HEADERS | EnvelopeFlag.SMTPUTF8
    _, outcomes = deliver(
        Bench(tmp_path),
        server,
        recipients=(recipient, other),
        envelope_flags=int(flags),
        dsn_envid="a b",
    )
    assert all(isinstance(outcome, Sent) for outcome in outcomes.values())
    size = len(HEADER + BODY)
    assert server.sessions[0][1:4] == [
        f"MAIL FROM:<a@example.org> SIZE={size} BODY=8BITMIME ENVID=a+20b RET=HDRS SMTPUTF8",
        'RCPT TO:<"b c"@x.test> ORCPT=rfc822;"o+2Br+3Dig+20x"@x.test NOTIFY=SUCCESS,DELAY',
        "RCPT TO:<d@x.test> ORCPT=rfc822;e+2Bf@x.test NOTIFY=NEVER",
    ]


def test_too_large_for_the_server(tmp_path: Path) -> None:
    server = Server({"EHLO": "250-sink\r\n250 SIZE 10"})
    outcome = one(Bench(tmp_path), server)
    size = len(HEADER + BODY)
    assert isinstance(outcome, Bounced)
    assert outcome.dsn == "5.3.4"
    assert outcome.reason == f"message size {size} exceeds size limit 10 of server {NAME}"


def test_smtputf8_required(tmp_path: Path) -> None:
    outcome = one(
        Bench(tmp_path),
        Server(),
        sender="jürgen@example.org",
        envelope_flags=int(EnvelopeFlag.SMTPUTF8),
    )
    assert isinstance(outcome, Bounced)
    assert outcome.dsn == "5.6.7"
    assert outcome.reason == (
        "message requires SMTPUTF8, but no server was found that supports SMTPUTF8. "
        f"The last attempted server was {NAME}"
    )


LONG = b"x" * 2500
CONTENTS = [
    ("dots", b"\r\n.\r\n..a\r\n.", ContentFlag.DOT_LINES, b"\r\n..\r\n...a\r\n..\r\n"),
    (
        "long lines",
        b"\r\n" + LONG + b"\r\n",
        ContentFlag.LONG_LINES,
        b"\r\n" + LONG[:998] + b"\r\n " + LONG[:997] + b"\r\n " + LONG[:505] + b"\r\n",
    ),
    ("exactly", b"\r\n" + LONG[:998] + b"\r\n", ContentFlag.LONG_LINES, None),
    ("no end", b"\r\nhello", 0, b"\r\nhello\r\n"),
    ("empty", b"", 0, b""),
    ("large", b"\r\n" + (b"0123456789" * 90 + b"\r\n") * 4000, 0, None),
    (
        "large with dots",
        b"\r\n" + b".123456789abcde\r\n" * 40_000,
        ContentFlag.DOT_LINES,
        b"\r\n" + b"..123456789abcde\r\n" * 40_000,
    ),
]


@pytest.mark.parametrize(
    ("body", "flags", "wire"), [case[1:] for case in CONTENTS], ids=[case[0] for case in CONTENTS]
)
def test_content(tmp_path: Path, body: bytes, flags: int, wire: bytes | None) -> None:
    server = Server()
    outcome = one(Bench(tmp_path), server, body=body, content_flags=int(flags))
    assert isinstance(outcome, Sent)
    assert server.contents == [HEADER + (body if wire is None else wire)]


def test_header_lines_of_flags(tmp_path: Path) -> None:
    server = Server(lmtp=True)
    bench = Bench(tmp_path, lmtp=True, flags=Flags(True, True, True, True))
    outcome = one(bench, server, recipients=(Recipient("b@x.test", "o@x.test"),))
    assert isinstance(outcome, Sent)
    assert server.contents[0].startswith(
        b"Return-Path: <a@example.org>\r\nX-Original-To: o@x.test\r\nDelivered-To: b@x.test\r\nSubj"
    )


@pytest.mark.parametrize("final", [True, False])
def test_delivery_by_lmtp_that_is_the_end(tmp_path: Path, *, final: bool) -> None:
    """lmtp_assume_final, for servers without DSN."""
    Bench(tmp_path, lmtp=True, lmtp_assume_final="yes" if final else "no")
    settings = load_settings(open_config(str(tmp_path)), (), lmtp=True)
    server = Server(lmtp=True, script={"LHLO": PLAIN_EHLO})
    outcome = one(Bench(tmp_path, lmtp=True, flags=settings.flags), server)
    assert isinstance(outcome, Sent)
    assert outcome.action == ("delivered" if final else "relayed")
    assert not load_settings(open_config(str(tmp_path)), (), lmtp=False).flags.final


def test_lmtp_replies_by_recipient(tmp_path: Path) -> None:
    replies = iter(["450 4.2.0 locked", "250 2.0.0 Ok"])

    class Lmtp(Server):
        def reply(self, line: str) -> str:
            return next(replies) if line == "." else super().reply(line)

    server = Lmtp(lmtp=True, script={"RCPT TO:<no@x.test> ORCPT=rfc822;no@x.test": "550 5.1.1 no"})
    names = ("busy@x.test", "no@x.test", "ok@x.test")
    _, outcomes = deliver(Bench(tmp_path, lmtp=True), server, recipients=names)
    assert [type(outcomes[name]) for name in names] == [Deferred, Bounced, Sent]
    assert server.sessions[0][0] == "LHLO mail.test"


@PIPELINING
@pytest.mark.parametrize("goodbye", ["221 2.0.0 Bye", CLOSE], ids=["bye", "close"])
def test_lmtp_server_that_answers_once_for_two(tmp_path: Path, ehlo: str, goodbye: str) -> None:
    """Nothing that comes afterwards, such as the answer to QUIT, is a delivery of the second."""
    replies = iter(["250 2.0.0 Ok", goodbye])

    class Lmtp(Server):
        def reply(self, line: str) -> str:
            return next(replies) if line == "." else super().reply(line)

    server = Lmtp(lmtp=True, script={"LHLO": ehlo})
    names = ("one@x.test", "two@x.test")
    _, outcomes = deliver(Bench(tmp_path, lmtp=True), server, recipients=names)
    assert [type(outcomes[name]) for name in names] == [Sent, Deferred]
    assert outcomes["two@x.test"].reason.startswith(
        f"lost connection with {NAME} while sending end"
    )


def test_lmtp_quit_waits_for_all_replies(tmp_path: Path) -> None:
    """A server that is slow with its second answer has not seen QUIT before."""
    seen: list[str] = []

    class Lmtp(Server):
        async def _say(
            self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str
        ) -> bool:
            if line == ".":
                await asyncio.sleep(0)
                seen.append(bytes(reader._buffer).decode())  # type: ignore[attr-defined]
            return await super()._say(reader, writer, line)

    deliver(Bench(tmp_path, lmtp=True), Lmtp(lmtp=True), recipients=("a@x.test", "b@x.test"))
    assert seen == ["", ""]


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."])
@PIPELINING
def test_goodbye_is_no_answer(tmp_path: Path, verb: str, ehlo: str) -> None:
    """221 is the answer to QUIT, which may be sent along with the end of data."""
    outcome = one(Bench(tmp_path), Server({"EHLO": ehlo, verb: "221 2.0.0 Bye"}))
    assert isinstance(outcome, Deferred)
    assert outcome.reason.startswith(f"lost connection with {NAME} while ")


@PIPELINING
@pytest.mark.parametrize("early", ["250 2.0.0 Ok: queued", "354 yes, go on", "220 hello"])
def test_reply_before_the_content_is_none_to_it(tmp_path: Path, early: str, ehlo: str) -> None:
    outcome = one(Bench(tmp_path), Server({"EHLO": ehlo, "DATA": f"354 go on\r\n{early}"}))
    assert isinstance(outcome, Deferred)
    assert outcome.dsn == "4.5.0"


@pytest.mark.parametrize("late", ["250 2.1.5 Ok", "550 5.1.1 no", "354 go on"])
def test_late_reply_in_a_kept_session(tmp_path: Path, late: str) -> None:
    """What it shifts must not be taken for the answers to another message."""

    async def main() -> list[Outcome]:
        found: list[Outcome] = []
        messages = iter(range(10))

        class Late(Server):
            def reply(self, line: str) -> str:
                reply = super().reply(line)
                if line == "RSET" and next(messages) == 0:
                    reply = f"250 2.0.0 Ok\r\n{late}"
                return reply

        async with Late() as server:
            bench = Bench(tmp_path)
            for flag in (DeliverFlag.KEEP, 0):
                delivery = bench.delivery(f"[127.0.0.1]:{server.port}", flags=int(flag))
                found += (await bench.run(delivery)).values()
        return found

    first, second = asyncio.run(main())
    assert isinstance(first, Sent)
    assert isinstance(second, Sent)


@pytest.mark.parametrize(
    ("script", "settings", "expected"),
    [
        ({}, {}, "none"),
        ({"EHLO": "450 no", "HELO": "450 no"}, {}, "none?"),
        ({"MAIL": CLOSE}, {}, "none"),
        ({}, {"smtp_tls_security_level": "may"}, "may:none"),
        ({}, {"smtp_log_tls_feature_status": "no"}, ""),
    ],
)
def test_tls_status(
    tmp_path: Path, script: dict[str, str], settings: dict[str, Any], expected: str
) -> None:
    assert one(Bench(tmp_path, **settings), Server(script)).tls == expected


@pytest.mark.parametrize("banner", ["220", "220 **2**0**"])
@pytest.mark.parametrize(
    ("settings", "verb"),
    [
        ({}, "HELO"),
        ({"smtp_pix_workarounds": ""}, "EHLO"),
        ({"smtp_pix_workaround_maps": "static:delay_dotcrlf"}, "EHLO"),
        ({"smtp_pix_workaround_maps": "fail:x"}, "HELO"),
    ],
)
def test_greeting_through_an_old_firewall(
    tmp_path: Path, banner: str, settings: dict[str, Any], verb: str
) -> None:
    server = Server({"CONNECT": banner})
    assert isinstance(one(Bench(tmp_path, **settings), server), Sent)
    assert server.sessions[0][0].split()[0] == verb


@pytest.mark.parametrize("body", [BODY, BODY[:-2]])
def test_delayed_dot(tmp_path: Path, body: bytes) -> None:
    """It comes in a packet of its own."""
    settings: dict[str, Any] = {
        "smtp_pix_workaround_threshold_time": "0",
        "smtp_pix_workaround_delay_time": "1",
    }
    server = Server({"CONNECT": "220 ****"})
    started = time.monotonic()
    outcome = one(Bench(tmp_path, **settings), server, body=body)
    assert isinstance(outcome, Sent)
    assert time.monotonic() - started >= 1
    assert server.contents == [HEADER + BODY]


@pytest.mark.parametrize("listed", ["127.0.0.1", "static:x"])
def test_cached_destination_is_named_without_brackets(tmp_path: Path, listed: str) -> None:
    async def main() -> int:
        async with Server() as server:
            bench = Bench(tmp_path, smtp_connection_cache_destinations=listed)
            for _ in range(2):
                await bench.run(bench.delivery(f"[127.0.0.1]:{server.port}"))
            bench.client.cache.close()
            await server.all_sessions_end()
            return len(server.sessions)

    assert asyncio.run(main()) == 1


def test_session_made_for_smtputf8_is_not_shared(tmp_path: Path) -> None:
    """With others, for which servers were passed over that do not have it."""

    async def main() -> list[int]:
        counts = []
        async with Server({"EHLO": "250-a\r\n250 SMTPUTF8"}) as server:
            bench = Bench(tmp_path, smtp_connection_cache_destinations="127.0.0.1")
            where = f"[127.0.0.1]:{server.port}"
            flags: dict[str, Any] = {"envelope_flags": int(EnvelopeFlag.SMTPUTF8)}
            none: dict[str, Any] = {}
            for values in (none, flags, none, flags):
                recipients = ("ä@example.org",) if values else ("a@example.org",)
                await bench.run(bench.delivery(where, recipients, **values))
                counts.append(len(server.sessions))
            bench.client.cache.close()
            await server.all_sessions_end()
        return counts

    assert asyncio.run(main()) == [1, 2, 2, 2]


def test_kept_session(tmp_path: Path) -> None:
    async def main() -> tuple[list[Outcome], Server]:
        found: list[Outcome] = []
        async with Server() as server:
            bench = Bench(tmp_path)
            for flag in (DeliverFlag.KEEP, DeliverFlag.KEEP, 0):
                delivery = bench.delivery(f"[127.0.0.1]:{server.port}", flags=int(flag))
                found += (await bench.run(delivery)).values()
            await server.all_sessions_end()
            return found, server

    outcomes, server = asyncio.run(main())
    assert [outcome.conn_use for outcome in outcomes] == [1, 2, 3]
    assert len(server.sessions) == 1
    verbs = [line.split()[0] for line in server.sessions[0]]
    message = ["MAIL", "RCPT", "DATA", "."]
    assert verbs == ["EHLO", *message, "RSET", *message, "RSET", *message, "QUIT"]


def test_kept_session_that_died(tmp_path: Path) -> None:
    async def main() -> tuple[list[Outcome], Server]:
        found: list[Outcome] = []
        async with Server() as server:
            bench = Bench(tmp_path)
            for _ in range(2):
                flag = int(DeliverFlag.KEEP)
                delivery = bench.delivery(f"[127.0.0.1]:{server.port}", flags=flag)
                found += (await bench.run(delivery)).values()
                server.script = {"RSET": CLOSE}
            bench.client.cache.close()
            return found, server

    outcomes, server = asyncio.run(main())
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert len(server.sessions) == 2


@pytest.mark.parametrize(("verb", "reply"), [(".", "451 4.3.0 full"), ("MAIL", "451 4.3.0 no")])
def test_kept_session_whose_server_has_had_enough(tmp_path: Path, verb: str, reply: str) -> None:
    """The message is tried on one more connection, then it waits."""

    async def main() -> tuple[list[Outcome], Server]:
        found: list[Outcome] = []
        async with Server() as server, asyncio.timeout(60):
            bench = Bench(tmp_path)
            for _ in range(2):
                flag = int(DeliverFlag.KEEP)
                delivery = bench.delivery(f"[127.0.0.1]:{server.port}", flags=flag)
                found += (await bench.run(delivery)).values()
                server.script = {verb: reply}
            bench.client.cache.close()
            await server.all_sessions_end()
            return found, server

    outcomes, server = asyncio.run(main())
    assert [outcome.dsn for outcome in outcomes] == ["2.0.0", "4.3.0"]
    assert len(server.sessions) == 2
    verbs = [[line.split()[0] for line in session] for session in server.sessions]
    assert all(session.count(verb) <= 2 for session in verbs)
    assert all(session[-1] == "QUIT" for session in verbs)


def test_address_probe(tmp_path: Path) -> None:
    server = Server()
    outcome = one(Bench(tmp_path), server, flags=int(TraceFlag.MTA_VERIFY))
    assert isinstance(outcome, Sent)
    assert outcome.action == "deliverable"
    assert outcome.reason == "250 2.1.5 Ok"
    verbs = [line.split()[0] for line in server.sessions[0]]
    assert verbs == ["EHLO", "MAIL", "RCPT", "RSET", "QUIT"]


def test_seven_bit_server(tmp_path: Path) -> None:
    server = Server({"EHLO": "250-sink\r\n250 PIPELINING"})
    header = HEADER + b"Content-Transfer-Encoding: 8bit\r\n"
    flags = int(ContentFlag.EIGHTBIT_BODY)
    one(Bench(tmp_path), server, header=header, body=b"\r\n\xe9\r\n", content_flags=flags)
    encoding = b"Content-Transfer-Encoding: quoted-printable\r\n"
    assert server.contents == [HEADER + encoding + b"\r\n=E9\r\n"]


@pytest.mark.parametrize("fallback", ["", "[127.0.0.9]"])
def test_loop_detection(tmp_path: Path, fallback: str) -> None:
    bench = Bench(tmp_path, own=frozenset(["127.0.0.1"]), smtp_fallback_relay=fallback)

    async def main() -> dict[str, Outcome]:
        return await bench.run(bench.delivery("[127.0.0.1]"))

    outcome = asyncio.run(main())["b@example.org"]
    assert isinstance(outcome, Bounced)
    assert outcome.dsn == "5.4.6"
    assert outcome.reason == "mail for 127.0.0.1 loops back to myself"


def test_fallback_that_is_this_system(tmp_path: Path, logged: list[str]) -> None:
    bench = Bench(tmp_path, own=frozenset(["127.0.0.1"]), smtp_fallback_relay="[127.0.0.1]")

    async def main() -> dict[str, Outcome]:
        return await bench.run(bench.delivery("[127.0.0.2]:1"))

    outcome = asyncio.run(main())["b@example.org"]
    assert isinstance(outcome, Deferred)
    assert outcome.dsn == "4.3.5"
    assert outcome.reason == "mail for 127.0.0.1 loops back to myself"
    assert "warning: smtp_fallback_relay configuration problem" in logged


@pytest.mark.parametrize(
    ("transport", "relayhost", "passed", "reason"),
    [
        ("local:", "", True, ""),
        ("down", "", False, "mail transport unavailable"),
        ("local", "[127.0.0.1]", False, "mail for 127.0.0.1 loops back to myself"),
    ],
)
def test_best_mx_transport(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    relayhost: str,
    passed: bool,
    reason: str,
) -> None:
    asked: list[tuple[str, str]] = []

    async def hand_over(
        delivery: Delivery, recipient: Recipient, sender: str, spec: str, timeout: float
    ) -> bool:
        if spec == "down":
            raise ServiceUnavailable("private/down: no such file")
        asked.append((recipient.address, spec))
        return True

    monkeypatch.setattr("daemons.smtp.walk.hand_over", hand_over)
    own = frozenset(["127.0.0.1"])
    bench = Bench(tmp_path, own=own, best_mx_transport=transport, relayhost=relayhost)

    async def main() -> dict[str, Outcome]:
        return await bench.run(bench.delivery("[127.0.0.1]"))

    outcomes = asyncio.run(main())
    assert asked == ([("b@example.org", transport)] if passed else [])
    if passed:
        assert outcomes == {}
    else:
        outcome = outcomes["b@example.org"]
        assert isinstance(outcome, Deferred)
        assert outcome.reason == reason


def test_many_slow_deliveries_at_once(tmp_path: Path) -> None:
    async def main() -> Server:
        async with Server(together=200) as server:
            bench = Bench(tmp_path)
            nexthop = f"[127.0.0.1]:{server.port}"
            deliveries = [bench.delivery(nexthop) for _ in range(200)]
            await asyncio.gather(*(bench.run(delivery) for delivery in deliveries))
            return server

    server = asyncio.run(main())
    assert len(server.contents) == 200
    assert server.open_most == 200


@pytest.mark.parametrize("enforced", [True, False])
def test_source_address_of_another_machine(
    tmp_path: Path, logged: list[str], *, enforced: bool
) -> None:
    """It is done without, unless smtp_bind_address_enforce wants the mail to wait."""
    server = Server()
    bench = Bench(
        tmp_path,
        smtp_bind_address="198.51.100.1",
        smtp_bind_address_enforce="yes" if enforced else "no",
    )
    outcome = one(bench, server)
    assert (
        "warning: smtp_connect_addr: bind 198.51.100.1: Cannot assign requested address" in logged
    )
    if not enforced:
        assert isinstance(outcome, Sent)
        return
    assert isinstance(outcome, Deferred)
    assert (outcome.dsn, outcome.reason) == ("4.4.0", "server configuration error")
    assert server.sessions == []


def test_source_address(tmp_path: Path) -> None:
    def sources(**values: Any) -> dict[int, str]:
        return dict(Bench(tmp_path, **values).settings.sources)

    every = {"inet_protocols": "all"}
    both = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
    assert sources(inet_interfaces="loopback-only") == {}
    assert sources(inet_interfaces="192.0.2.1, 127.0.0.1") == {}
    assert sources(inet_interfaces="192.0.2.1, 2001:db8::1", **every) == both
    assert sources(smtp_bind_address="192.0.2.1", smtp_bind_address6="2001:db8::1") == both
    assert sources(inet_interfaces="192.0.2.2", smtp_bind_address="192.0.2.1") == {
        socket.AF_INET: "192.0.2.1"
    }
