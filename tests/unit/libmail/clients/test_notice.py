"""Notices to the postmaster."""

import asyncio
import re

import pytest

from libmail.clients.notice import NoticeParams, Postmaster, transcript_text
from libmail.ipc.messages import CleanupFlag
from libmail.log import LOG
from tests.unit.libmail.clients.fakes import FakeCleanup

PARAMS = NoticeParams(
    double_bounce_sender="double-bounce",
    error_notice_recipient="postmaster",
    header_from_format="standard",
    internal_mail_filter_classes=(),
    mail_name="Postfix",
    myhostname="mail.test",
    notify_classes=("protocol", "resource"),
)
DATE = re.compile(r"\w{3}, [ \d]\d \w{3} \d{4} [\d:]{8} \+0000 \(UTC\)")


def test_a_notice() -> None:
    cleanup = FakeCleanup()
    postmaster = Postmaster(PARAMS, cleanup)
    asyncio.run(
        postmaster.tell(
            "SMTP client: errors from mx[1.2.3.4]:25",
            [("In", b"220 mx"), ("Out", b"EHLO mail.test\r\n"), ("In", b"250-mx\r\n250 DSN")],
            opening="Unexpected response from mx[1.2.3.4]:25.",
            ending="Session aborted, reason: timeout\r\n\r\n",
        )
    )
    (message,) = cleanup.messages
    assert message.finished
    assert message.flags == CleanupFlag.MAP
    assert (message.sender, message.recipients) == ("double-bounce@mail.test", ["postmaster"])
    assert DATE.sub("DATE", message.content.decode()).split("\r\n") == [
        "Received: by mail.test (Postfix)",
        "\tid 3Q1; DATE",
        "Date: DATE",
        "From: Mail Delivery System <MAILER-DAEMON@mail.test>",
        "To: Postmaster <postmaster>",
        "Subject: Postfix SMTP client: errors from mx[1.2.3.4]:25",
        "",
        "Unexpected response from mx[1.2.3.4]:25.",
        "",
        "Transcript of session follows.",
        "",
        " In:  220 mx",
        " Out: EHLO mail.test",
        " In:  250-mx",
        " In:  250 DSN",
        "",
        "Session aborted, reason: timeout",
        "",
        "For other details, see the local mail logfile",
        "",
    ]


def test_settings() -> None:
    cleanup = FakeCleanup()
    params = NoticeParams(
        "double-bounce", "errors@x.test", "obsolete", ("notify",), "Mail", "mail.test", ()
    )
    asyncio.run(Postmaster(params, cleanup).tell("x", [], recipient="bounces@x.test"))
    (message,) = cleanup.messages
    assert message.flags == CleanupFlag.MAP | CleanupFlag.FILTER
    assert message.recipients == ["bounces@x.test"]
    assert b"\r\nFrom: MAILER-DAEMON@mail.test (Mail Delivery System)\r\n" in message.content
    assert b"\r\nTo: errors@x.test (Postmaster)\r\n" in message.content


def test_what_is_wanted() -> None:
    postmaster = Postmaster(PARAMS, FakeCleanup())
    assert postmaster.wants({"policy", "protocol"})
    assert not postmaster.wants({"policy", "bounce"})
    assert not postmaster.wants(())


def test_failing_is_no_more_than_a_warning() -> None:
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/smtp")
    asyncio.run(Postmaster(PARAMS, FakeCleanup(down=True)).tell("x", []))
    assert logged == ["warning: postmaster notify: public/cleanup: nobody there"]


@pytest.mark.parametrize(
    ("data", "want"),
    [
        (b"501 " + b"word " * 20, [
            " In:  501 word word word word word word word word word word word word word word",
            "     word word word word word word",
        ]),
        (b"x" * 100, [" In:", "     " + "x" * 100]),
        ("550 grüße \x07\t!".encode(), [" In:  550 grüße ??!"]),
        (b"550 \xff", [" In:  550 \ufffd"]),
    ],
)  # fmt: skip
def test_folding(data: bytes, want: list[str]) -> None:
    assert transcript_text([("In", data)]).split("\r\n") == want
