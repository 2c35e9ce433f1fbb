"""Delivery reports, to the letter."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libmail.dsn.report import Notice, Original, compose
from libmail.ipc.messages import QueueId, Target
from libmail.message.dates import rfc5322_date

NOTICE = Notice(
    sender="Mail Delivery System <MAILER-DAEMON>",
    subject="Undelivered Mail Returned to Sender",
    recipient="alice@example.test",
    text="This is the text.\n",
    charset="utf-8",
    eightbit=True,
    automatic="auto-replied",
    action="failed",
    retry_until=0.0,
    returned="Undelivered Message",
    via=False,
    thread="",
    now=1700000000.0,
    host="mail.example.test",
    mail_name="Postfix",
    queue_id=QueueId("NEW1"),
    origin="example.test",
)
ORIGINAL = Original(
    queue_id=QueueId("OLD1"),
    sender="alice@example.test",
    arrival=1699990000.0,
    envid="",
    utf8=False,
    eightbit=False,
    header=b"Subject: x\r\n",
    body=b"\r\nbody\r\n",
)
TARGET = Target("x@later.test", "x@later.test", "", 0, 0, "failed", "4.4.9", "for ever")


def text_of(notice: Notice, original: Original, *targets: Target) -> str:
    data = compose(notice, original, targets)
    assert b"\n" not in data.replace(b"\r\n", b"")
    return data.decode().replace("\r\n", "\n")


def fields_of(notice: Notice, original: Original, *targets: Target) -> str:
    text = text_of(notice, original, *targets)
    return text.split("\nReporting-MTA: ")[1].split("\n\n--OLD1")[0]


def test_the_whole() -> None:
    date = rfc5322_date(1700000000.0)
    assert (
        text_of(NOTICE, ORIGINAL, TARGET)
        == f"""\
Received: by mail.example.test (Postfix)
\tid NEW1; {date}
Date: {date}
From: Mail Delivery System <MAILER-DAEMON>
Subject: Undelivered Mail Returned to Sender
To: alice@example.test
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="OLD1.1700000000/mail.example.test"
Content-Transfer-Encoding: 8bit

This is a MIME-encapsulated message.

--OLD1.1700000000/mail.example.test
Content-Description: Notification
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

This is the text.

<x@later.test>: for ever

--OLD1.1700000000/mail.example.test
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.test
X-Postfix-Queue-ID: OLD1
X-Postfix-Sender: rfc822; alice@example.test
Arrival-Date: {rfc5322_date(1699990000.0)}

Final-Recipient: rfc822; x@later.test
Original-Recipient: rfc822;x@later.test
Action: failed
Status: 4.4.9
Diagnostic-Code: X-Postfix; for ever

--OLD1.1700000000/mail.example.test
Content-Description: Undelivered Message
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Return-Path: <alice@example.test>
Subject: x

body

--OLD1.1700000000/mail.example.test--
"""
    )


def test_headers_only() -> None:
    text = text_of(NOTICE, replace(ORIGINAL, body=None), TARGET)
    assert "Content-Description: Undelivered Message Headers\n" in text
    assert "Content-Type: text/rfc822-headers\n" in text
    assert "Subject: x\n\n--OLD1.1700000000/mail.example.test--\n" in text


def test_seven_bits() -> None:
    notice = replace(NOTICE, eightbit=False, charset="us-ascii")
    text = text_of(notice, ORIGINAL, TARGET)
    assert "Content-Transfer-Encoding" not in text
    assert "charset=us-ascii\n\nThis is the text" in text


def test_null_sender_is_shown_as_the_daemon() -> None:
    text = text_of(NOTICE, replace(ORIGINAL, sender=""), TARGET)
    assert "X-Postfix-Sender: rfc822; MAILER-DAEMON@mail.example.test\n" in text
    assert "Return-Path: <MAILER-DAEMON@mail.example.test>\n" in text


def test_thread() -> None:
    text = text_of(replace(NOTICE, thread="<p@x>"), ORIGINAL, TARGET)
    assert "\nReferences: <p@x>\nIn-Reply-To: <p@x>\nAuto-Submitted: " in text


def test_utf8() -> None:
    target = TARGET._replace(address="jörg@remote.test", orig_rcpt="jörg@remote.test")
    text = text_of(NOTICE, replace(ORIGINAL, utf8=True), target)
    status = "message/global-delivery-status\nContent-Transfer-Encoding: 8bit\n"
    assert f"Content-Type: {status}" in text
    assert "Content-Type: message/global\n" in text
    assert "Final-Recipient: utf-8; jörg@remote.test\n" in text
    assert "Original-Recipient: rfc822;jörg@remote.test\n" in text
    only = text_of(NOTICE, replace(ORIGINAL, utf8=True, body=None), target)
    assert "Content-Type: message/global-headers\n" in only


def test_delay() -> None:
    notice = replace(NOTICE, action="delayed", retry_until=1700432000.0)
    fields = fields_of(notice, replace(ORIGINAL, envid="abc+def"), TARGET)
    assert "Original-Envelope-Id: abc+def\n" in fields
    assert fields.endswith(f"for ever\nWill-Retry-Until: {rfc5322_date(1700432000.0)}")


FIELDS = [
    ("orcpt", {"dsn_orcpt": "rfc822;first+2Bx@orig.test"},
     "Original-Recipient: rfc822;first+x@orig.test\n"),
    ("orcpt that is no xtext", {"dsn_orcpt": "rfc822;a+zz"}, "Original-Recipient: rfc822;a+zz\n"),
    ("utf-8 orcpt", {"dsn_orcpt": r"utf-8;\x{E4}b@x"}, "Original-Recipient: utf-8;äb@x\n"),
    ("surrogate", {"dsn_orcpt": r"utf-8;\x{D800}"}, "Original-Recipient: utf-8;\\x{D800}\n"),
    ("orcpt with a line end", {"dsn_orcpt": "rfc822;a+0D+0AX:y"},
     "Original-Recipient: rfc822;a??X:y\n"),
    ("quoted", {"address": "p l@x", "orig_rcpt": "p l@x"}, 'Final-Recipient: rfc822; "p l"@x\n'),
    ("no domain", {"orig_rcpt": "bob"}, "Original-Recipient: rfc822;bob@example.test\n"),
    ("remote", {"mta": "mx.test", "diag_type": "smtp", "diag_text": "550 5.1.1 no"},
     "Remote-MTA: dns; mx.test\nDiagnostic-Code: smtp; 550 5.1.1 no\n"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "want"), [c[1:] for c in FIELDS], ids=[c[0] for c in FIELDS])
def test_recipient_fields(changes: dict[str, str], want: str) -> None:
    assert want in fields_of(NOTICE, ORIGINAL, Target(**{**TARGET._asdict(), **changes})) + "\n"


def test_long_reasons_are_folded() -> None:
    reason = (
        "host mx.remote.test[192.0.2.25] said: 550 5.1.1 no way <x>: this text is very long, "
        "so long that it does not fit a line at all, indeed" + "a" * 100 + "   b (in reply to RCPT)"
    )
    target = TARGET._replace(address="plain@remote.test", orig_rcpt="plain", reason=reason)
    assert (
        "\n<plain@remote.test> (expanded from <plain>): host mx.remote.test[192.0.2.25]\n"
        "    said: 550 5.1.1 no way <x>: this text is very long, so long that it does\n"
        f"    not fit a line at all,\n    indeed{'a' * 100}\n    b (in reply to RCPT)\n"
    ) in text_of(NOTICE, ORIGINAL, target)


def test_folding_counts_octets() -> None:
    target = TARGET._replace(address="jörg@remote.test", reason="nö " * 40)
    lines = text_of(NOTICE, ORIGINAL, target).encode().split(b"\n")
    assert max(map(len, lines)) <= 79


def test_via() -> None:
    notice = replace(NOTICE, via=True, action="")
    fields = fields_of(notice, ORIGINAL, TARGET._replace(action="deliverable", relay="local"))
    assert "Action: deliverable\n" in fields
    assert fields.endswith("Diagnostic-Code: X-Postfix; delivery via local: for ever")
    assert "delivery via" not in fields_of(notice, ORIGINAL, TARGET._replace(relay="none"))


TEXT = st.text(max_size=30)


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_text_adds_lines(address: str, orcpt: str, reason: str, envid: str) -> None:
    target = TARGET._replace(address=address, dsn_orcpt=orcpt, reason=reason, diag_text=reason,
                             diag_type="smtp", mta=reason)  # fmt: skip
    data = compose(NOTICE, replace(ORIGINAL, envid=envid, sender=address), [target])
    parsed = email.message_from_bytes(data, policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/report"
    parts = list(parsed.iter_parts())
    assert [part.get_content_type() for part in parts] == [
        "text/plain", "message/delivery-status", "message/rfc822",
    ]  # fmt: skip


def test_report_of_a_message_that_does_without_tls() -> None:
    """RFC 8689 §5: so does its report."""
    head = text_of(NOTICE, replace(ORIGINAL, tls_optional=True), TARGET).partition("\n\n")[0]
    assert "\nTLS-Required: no\n" in head
    assert "TLS-Required" not in text_of(NOTICE, ORIGINAL, TARGET)
