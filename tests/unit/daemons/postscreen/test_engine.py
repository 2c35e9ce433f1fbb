"""The SMTP of postscreen itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from daemons.postscreen.engine import Engine
from daemons.postscreen.screen_tests import Record, ScreenTest
from daemons.postscreen.screening import Screening
from libmail.net.ends import Ends
from tests.unit.daemons.postscreen.world import World

CLIENT = "[192.0.2.1]:99"
MAIL = "EHLO c.test\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<b@mail.test>\r\n"
ALL = {
    "postscreen_pipelining_enable": "yes",
    "postscreen_non_smtp_command_enable": "yes",
    "postscreen_bare_newline_enable": "yes",
}


class Talk:
    """A session of a client that waits for replies unless it is told not to."""

    def __init__(
        self, world: World, settings: Mapping[str, str] | None = None, *, greeted: bool = True
    ) -> None:
        prepared = world.prepared(**(settings or {}))
        self.world = world
        self.screening = Screening(prepared.rules, Record(), 0)
        if greeted:
            self.screening.passes(ScreenTest.GREET, 0)
        else:
            self.screening.fail(ScreenTest.GREET)
        self.screening.begin_deep_tests()
        ends = Ends("192.0.2.1", "99", "192.0.2.2", "25")
        self.engine = Engine(prepared, self.screening, ends, CLIENT, prepared.discard)

    def say(self, text: str | bytes) -> list[str]:
        """In one piece."""
        data = text if isinstance(text, bytes) else text.encode()
        return asyncio.run(self.engine.receive(data)).decode().splitlines()

    def each(self, text: str) -> list[str]:
        """Line by line; the last line of each reply."""
        return [self.say(line)[-1] for line in text.splitlines(keepends=True)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_good_client(world: World) -> None:
    talk = Talk(world, ALL)
    assert talk.engine.greeting() == b"220 mail.test ESMTP Postfix\r\n"
    assert talk.each(MAIL + "RSET\r\nNOOP x\r\nQUIT\r\n") == [
        "250 CHUNKING",
        "250 2.1.0 Ok",
        "450 4.3.2 Service currently unavailable",
        "250 2.0.0 Ok",
        "250 2.0.0 Ok",
        "221 2.0.0 Bye",
    ]
    assert talk.engine.over
    assert talk.engine.reached
    talk.screening.end_deep_tests(time.time())
    assert talk.screening.passed
    assert world.logged == [
        f"NOQUEUE: reject: RCPT from {CLIENT}: 450 4.3.2 Service currently unavailable; "
        "from=<a@c.test>, to=<b@mail.test>, proto=ESMTP, helo=<c.test>"
    ]


DEEP = {**ALL, "postscreen_deep_handover": "yes"}


def test_client_that_goes_on_with_smtpd(world: World) -> None:
    talk = Talk(world, DEEP)
    lines = [b"helo \xe9x", b"MAIL FROM:<b@c.test> SIZE=9", b"RCPT  TO:<b@mail.test> NOTIFY=NEVER"]
    for line in (b"EHLO c.test", b"MAIL FROM:<a@c.test>", lines[0], b"NOOP", lines[1], b"MAIL x"):
        talk.say(line + b"\r\n")
    assert not talk.engine.said
    assert talk.say(lines[2] + b"\r\n") == []
    assert [line.encode("utf-8", "surrogateescape") for line in talk.engine.said] == lines
    assert (talk.engine.over, talk.engine.reached) == (True, True)
    assert world.logged == []


def test_only_what_was_said_within_tls_goes_on(world: World) -> None:
    talk = Talk(world, DEEP)
    talk.each("EHLO before.test\r\nMAIL FROM:<a@c.test>\r\n")
    talk.engine.state.restart()
    talk.each("MAIL FROM:<b@c.test>\r\n")
    assert talk.say("RCPT TO:<b@mail.test>\r\n") == []
    assert talk.engine.said == ("MAIL FROM:<b@c.test>", "RCPT TO:<b@mail.test>")


def test_client_without_a_name_goes_on_with_smtpd(world: World) -> None:
    talk = Talk(world, DEEP)
    assert talk.each("MAIL FROM:<>\r\n") == ["250 2.1.0 Ok"]
    assert talk.say("RCPT TO:<x\r\n") == ["501 5.1.3 Bad recipient address syntax"]
    assert talk.say("RCPT TO:<x@y>\r\n") == []
    assert talk.engine.said == ("MAIL FROM:<>", "RCPT TO:<x@y>")


@pytest.mark.parametrize("reason", ["failed", "vetoed", "more has come"])
def test_client_that_has_to_come_again(world: World, reason: str) -> None:
    enforced = {"postscreen_greet_action": "enforce", "postscreen_pipelining_action": "ignore"}
    talk = Talk(world, {**DEEP, **enforced}, greeted=reason != "failed")
    if reason == "vetoed":
        talk.screening.veto()
    more = "NOOP\r\n" if reason == "more has come" else ""
    talk.each("EHLO c.test\r\nMAIL FROM:<a@c.test>\r\n")
    refused = "550 5.5.1 Protocol error" if reason == "failed" else "450 4.3.2 Service currently"
    assert talk.say(f"RCPT TO:<b@mail.test>\r\n{more}")[0].startswith(refused)
    assert not talk.engine.said
    assert not talk.engine.over


def test_client_that_failed(world: World) -> None:
    talk = Talk(world, {"postscreen_greet_action": "enforce"}, greeted=False)
    assert talk.each("HELO x\r\nVRFY b\r\nMAIL FROM:<>\r\nRCPT TO:<b@mail.test>\r\n")[1:] == [
        "550 5.5.1 Protocol error",
        "250 2.1.0 Ok",
        "550 5.5.1 Protocol error",
    ]
    assert "from=<>, to=<b@mail.test>, proto=SMTP, helo=<x>" in world.logged[0]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("HELO", "501 Syntax: HELO hostname"),
        ("EHLO ", "501 Syntax: EHLO hostname"),
        ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:<a@b", "501 5.1.7 Bad sender address syntax"),
        ("RCPT TO:<a@b>", "503 5.5.1 Error: need MAIL command"),
        ("DATA", "503 5.5.1 Error: need RCPT command"),
        ("DATA x", "501 5.5.4 Syntax: DATA"),
        ("BDAT", "501 5.5.4 Syntax: BDAT count [LAST]"),
        ("BDAT 10 LAST", "554 5.5.1 Error: need MAIL command"),
        ("VRFY", "501 5.5.4 Syntax: VRFY address"),
        ("ETRN", "500 Syntax: ETRN domain"),
        ("ETRN x", "458 Unable to queue messages"),
        ("STARTTLS", "502 5.5.1 Error: command not implemented"),
        ("AUTH PLAIN", "502 5.5.1 Error: command not implemented"),
        ("XCLIENT ADDR=1.1.1.1", "502 5.5.1 Error: command not implemented"),
        ("", "502 5.5.2 Error: command not recognized"),
        ("BOGUS", "502 5.5.2 Error: command not recognized"),
        ("\0", "502 5.5.2 Error: command not recognized"),
    ],
)
def test_replies(world: World, line: str, reply: str) -> None:
    assert Talk(world).say(f"{line}\r\n") == [reply]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("MAIL FROM:<b@c.test>", "503 5.5.1 Error: nested MAIL command"),
        ("RCPT TO:", "501 5.5.4 Syntax: RCPT TO:<address>"),
        ("RCPT TO:<>", "501 5.1.3 Bad recipient address syntax"),
        ("RCPT TO:<<", "501 5.1.3 Bad recipient address syntax"),
    ],
)
def test_replies_in_a_transaction(world: World, line: str, reply: str) -> None:
    talk = Talk(world)
    talk.say("MAIL FROM:<a@c.test>\r\n")
    assert talk.say(f"{line}\r\n") == [reply]


@pytest.mark.parametrize("verb", ["DATA", "BDAT 5"])
def test_content_ends_the_session(world: World, verb: str) -> None:
    talk = Talk(world)
    talk.each(MAIL)
    assert talk.say(f"{verb}\r\nhello\r\n") == ["554 5.5.1 Error: no valid recipients"]
    assert talk.engine.over
    assert world.logged[-1] == f"{verb[:4]} without valid RCPT from {CLIENT}"


def test_pipelining(world: World) -> None:
    talk = Talk(world, ALL)
    assert talk.say(MAIL)[-1] == "550 5.5.1 Protocol error"
    assert world.logged[0] == (
        f"COMMAND PIPELINING from {CLIENT} after EHLO: "
        r"MAIL FROM:<a@c.test>\r\nRCPT TO:<b@mail.test>\r\n"
    )
    assert len(world.logged) == 2


def test_pipelining_may_be_ignored_or_drop(world: World) -> None:
    assert "450" in Talk(world, {**ALL, "postscreen_pipelining_action": "ignore"}).say(MAIL)[-1]
    talk = Talk(world, {**ALL, "postscreen_pipelining_action": "drop"})
    assert talk.say(MAIL) == ["521 5.5.1 Protocol error"]
    assert talk.engine.over


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "CONNECT x:25", "Subject: x", "subject : x"])
def test_other_protocols(world: World, line: str) -> None:
    talk = Talk(world, ALL)
    assert talk.say(f"{line}\r\n") == ["521 5.7.0 Error: I can break rules, too. Goodbye."]
    assert talk.engine.over
    assert world.logged == [f"NON-SMTP COMMAND from {CLIENT} after CONNECT: {line}"]


def test_other_protocols_enforced(world: World) -> None:
    talk = Talk(world, {**ALL, "postscreen_non_smtp_command_action": "enforce"})
    assert talk.say("GET /\r\n") == ["502 5.5.2 Error: command not recognized"]
    assert "550 5.7.0" in talk.each(MAIL)[-1]


def test_bare_newline(world: World) -> None:
    talk = Talk(world, {**ALL, "postscreen_bare_newline_action": "enforce"})
    talk.say("HELO x\r\n")
    talk.say("NOOP\n")
    talk.say("NOOP\n")
    assert world.logged == [f"BARE NEWLINE from {CLIENT} after HELO"]
    assert "550 5.5.1" in talk.each("MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\n")[-1]


def test_too_many_commands(world: World) -> None:
    talk = Talk(world, {"postscreen_command_count_limit": "3"})
    replies = talk.each("NOOP\r\n" * 4)
    assert replies[-1] == "421 mail.test Service unavailable - try again later"
    assert world.logged == [f"COMMAND COUNT LIMIT from {CLIENT} after NOOP"]
    assert talk.engine.over


def test_too_long_and_too_late(world: World) -> None:
    talk = Talk(world)
    assert talk.say(b"x" * 4000)[0].startswith("421 ")
    assert world.logged == [f"COMMAND LENGTH LIMIT from {CLIENT} after CONNECT"]
    late = asyncio.run(Talk(world).engine.late())
    assert late == b"421 4.4.2 mail.test Error: timeout exceeded\r\n"


def test_endless_line_is_not_kept(world: World) -> None:
    talk = Talk(world)
    for _ in range(100):
        talk.say(b"x" * 4000)
    assert talk.engine.over


def test_extensions(world: World) -> None:
    talk = Talk(
        world,
        {
            "disable_vrfy_command": "yes",
            "smtpd_discard_ehlo_keywords": "chunking, DSN",
            "message_size_limit": "1000",
            "smtputf8_enable": "no",
        },
    )
    assert talk.say("EHLO x\r\n") == [
        "250-mail.test",
        "250-SIZE 1000",
        "250-ETRN",
        "250-ENHANCEDSTATUSCODES",
        "250 8BITMIME",
    ]
    assert world.logged == [f"{CLIENT}: discarding EHLO keywords: DSN, CHUNKING"]
    assert talk.say("VRFY x\r\n") == ["502 5.5.1 VRFY command is disabled"]


def test_helo_required(world: World) -> None:
    talk = Talk(world, {"smtpd_helo_required": "yes"})
    assert talk.say("MAIL FROM:<>\r\n") == ["503 5.5.1 Error: send HELO/EHLO first"]
    assert talk.say("ETRN x\r\n") == ["503 5.5.1 Error: send HELO/EHLO first"]


def test_command_filter(world: World) -> None:
    talk = Talk(world, {"postscreen_command_filter": "inline:{ {NOOPE=QUIT} }"})
    assert talk.say("NOOPE\r\n") == ["221 2.0.0 Bye"]
    assert world.logged == [f'{CLIENT}: replacing command "NOOPE" with "QUIT"']


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"smtpd_reject_footer": r"\c. Ask $server_name, $client_port"}, ". Ask mail.test, 99"),
        ({"postscreen_reject_footer": "call $myhostname"}, "502 5.5.2 call mail.test"),
        ({"smtpd_reject_footer_maps": "regexp:{{/recognized/ what?}}"}, "502 5.5.2 what?"),
        ({"smtpd_reject_footer_maps": "fail:x"}, "502 5.5.2 Error: command not recognized"),
        ({"smtpd_reject_footer": "$client_address", "smtpd_expansion_filter": "0129"},
         "192_0_2_1"),
        ({"smtpd_reject_footer": "$client_address", "postscreen_expansion_filter": "."},
         "___._._._"),
        ({"soft_bounce": "yes"}, "402 4.5.2 Error: command not recognized"),
        ({"smtpd_reject_footer": "${x"}, "502 5.5.2 Error: command not recognized"),
    ],
)  # fmt: skip
def test_footers(world: World, settings: dict[str, str], last: str) -> None:
    assert Talk(world, settings).say("BOGUS\r\n")[-1].endswith(last)


def test_names_cannot_forge_log_lines(world: World) -> None:
    talk = Talk(world)
    talk.each("HELO x>,\x1b[0m\r\n")
    talk.say("MAIL FROM:<a>\r\n")
    talk.say('RCPT TO:<"b\x07>, to=<c"@mail.test>\r\n')
    assert all(line.isprintable() for line in world.logged)
    assert "helo=<x?,?[0m>" in world.logged[-1]


def secured(talk: Talk) -> str:
    """Let TLS start; the reply to STARTTLS."""
    assert talk.engine.state.wants_tls
    return asyncio.run(talk.engine.answer_starttls(starting=True)).decode()


def test_starttls(world: World) -> None:
    talk = Talk(world, {"smtpd_tls_security_level": "may"})
    assert "250-STARTTLS" in talk.say("EHLO c.test\r\n")
    assert talk.say("STARTTLS now\r\n") == ["501 5.5.4 Syntax: STARTTLS"]
    assert talk.say("MAIL FROM:<a@c.test>\r\nSTARTTLS\r\nRSET\r\n") == ["250 2.1.0 Ok"]
    assert secured(talk) == "220 2.0.0 Ready to start TLS\r\n"
    assert talk.say("RCPT TO:<b@mail.test>\r\n") == ["503 5.5.1 Error: need MAIL command"]
    assert talk.engine.state.helo == ""
    assert "250-STARTTLS" not in talk.say("EHLO c.test\r\n")
    assert talk.say("STARTTLS\r\n") == ["554 5.5.1 Error: TLS already active"]


def test_what_comes_early_behind_starttls(world: World) -> None:
    """It is a failure, and never carried out."""
    talk = Talk(world, {"smtpd_tls_security_level": "may", "postscreen_pipelining_enable": "yes"})
    assert talk.say("STARTTLS\r\nNOOP\r\n") == []
    assert secured(talk) == "220 2.0.0 Ready to start TLS\r\n"
    assert talk.say("") == []
    assert talk.screening.has_failed(ScreenTest.PIPELINING)
    assert world.logged == [f"COMMAND PIPELINING from {CLIENT} after STARTTLS: NOOP\\r\\n"]


def test_the_log_has_no_footer(world: World) -> None:
    talk = Talk(world, {"smtpd_reject_footer": "call us"})
    last = talk.each("EHLO c.test\r\nMAIL FROM:<a@c.test>\r\nRCPT TO:<b@mail.test>\r\n")[-1]
    assert last == "450 4.3.2 call us"
    reason = f"NOQUEUE: reject: RCPT from {CLIENT}: 450 4.3.2 Service currently unavailable; "
    assert world.logged[-1].startswith(reason)


def test_starttls_without_tlsproxy(world: World) -> None:
    talk = Talk(world, {"smtpd_tls_security_level": "may", "postscreen_reject_footer": "(sorry)"})
    assert talk.say("STARTTLS\r\nNOOP\r\n") == []
    assert asyncio.run(talk.engine.answer_starttls(starting=False)).decode().splitlines() == [
        "454-4.7.0 TLS not available due to local problem",
        "454 4.7.0 (sorry)",
        "250 2.0.0 Ok",
    ]
    assert talk.say("QUIT\r\n") == ["221 2.0.0 Bye"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"smtpd_use_tls": "yes", "postscreen_tls_security_level": "none"},
     {"smtpd_use_tls": "yes", "postscreen_discard_ehlo_keywords": "starttls, silent-discard"}],
    ids=["none", "not for postscreen", "hidden"],
)  # fmt: skip
def test_starttls_where_there_is_none(world: World, settings: Mapping[str, str]) -> None:
    talk = Talk(world, settings)
    assert "250-STARTTLS" not in talk.say("EHLO c.test\r\n")
    assert talk.say("STARTTLS\r\n") == ["502 5.5.1 Error: command not implemented"]


def test_tls_as_an_obligation(world: World) -> None:
    talk = Talk(world, {"postscreen_tls_security_level": "encrypt"})
    first = "530 5.7.0 Must issue a STARTTLS command first"
    assert talk.each("EHLO c.test\r\nVRFY x\r\nMAIL FROM:<a@c.test>\r\nNOOP\r\nNONE\r\n") == [
        "250 CHUNKING", first, first, "250 2.0.0 Ok", "502 5.5.2 Error: command not recognized",
    ]  # fmt: skip
    talk.say("STARTTLS\r\n")
    secured(talk)
    assert talk.each(MAIL)[-1].startswith("450 4.3.2 ")
