"""Headers as the real cleanup(8) wrote them, recorded from it."""

import asyncio
from dataclasses import replace

import pytest

from daemons.cleanup.header import HeaderEditor
from daemons.cleanup.status import Refused
from libmail.ipc.messages import Envelope, QueueId
from libmail.log import LOG
from libmail.message.dates import rfc5322_date
from libmail.message.headers import scan
from tests.unit.daemons.cleanup.conftest import HEADERS, MakeMapper

ARRIVAL = 1795367919.0
DATE = rfc5322_date(ARRIVAL)
ID = "<20261122171839.QID@mail.example.test>"
ENVELOPE = Envelope(sender="plain@example.test", arrival=ARRIVAL)
DONE = "Message-Id: <a@b>\r\nDate: x\r\nFrom: a@b.c\r\n"


def edit(
    make_mapper: MakeMapper, text: str, envelope: Envelope = ENVELOPE, **changes: object
) -> str:
    params = replace(HEADERS, **changes)  # type: ignore[arg-type]
    editor = HeaderEditor(params, make_mapper())
    data = text.encode() + b"\r\nbody\r\n"
    found = scan(data)
    header = editor.begin(envelope, QueueId("QID"), mapping=True)
    return (asyncio.run(header.edit(data, found.fields, found.end)) + header.end().data).decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (DONE, DONE),
        (
            "Subject: s\r\n",
            f"Subject: s\r\nMessage-Id: {ID}\r\nDate: {DATE}\r\nFrom: plain@example.test\r\n",
        ),
        (
            "Resent-To: s\r\n",
            f"Resent-To: s@example.test\r\nResent-Message-Id: {ID}\r\nResent-Date: {DATE}\r\n"
            "Resent-From: plain@example.test\r\n",
        ),
        (f"{DONE}Return-Path: <x>\r\nBcc: h\r\nContent-Length: 5\r\nX: y\r\n", f"{DONE}X: y\r\n"),
        (f"Subject : space\r\n{DONE}", f"Subject: space\r\n{DONE}"),
        ("Message-Id:\r\nDate:\r\nFrom:\r\n", "Message-Id:\r\nDate:\r\nFrom:\r\n"),
        (
            f"{DONE}Reply-To: user@short, user@full.test, host!user, a!b!c@d,"
            " user%inner.test@outer, @route:u@x.test\r\n",
            f"{DONE}Reply-To: user@short.example.test, user@full.test,\r\n"
            "\tuser@host.example.test, a!b!c@d.example.test,\r\n"
            "\tuser%inner.test@outer.example.test, u@x.test\r\n",
        ),
        (
            f'{DONE}To: "quoted local"@example.test, <user@short.>, user%host, undisclosed:;,'
            " Name Only <bare>\r\n",
            f'{DONE}To: "quoted local"@example.test, <user@short>,\r\n\tuser@host.example.test,'
            " undisclosed: ;, Name Only <bare@example.test>\r\n",
        ),
        (f"{DONE}Errors-To: err\r\nFollowup-To: fo\r\n",
         f"{DONE}Errors-To: err@example.test\r\nFollowup-To: fo\r\n"),
        (f"{DONE}X-Long: {'a' * 400}\r\n", f"{DONE}X-Long: {'a' * 292}\r\n"),
    ],
)  # fmt: skip
def test_edit(make_mapper: MakeMapper, before: str, after: str) -> None:
    assert edit(make_mapper, before) == after


def test_remote_mail_is_left_alone(make_mapper: MakeMapper) -> None:
    text = "To: incomplete\r\nSubject: nothing else\r\n"
    assert edit(make_mapper, text, ENVELOPE._replace(rewrite_context="")) == text


def test_remote_domain(make_mapper: MakeMapper) -> None:
    envelope = ENVELOPE._replace(rewrite_context="domain.invalid")
    text = edit(make_mapper, f"{DONE}To: user@short\r\n", envelope)
    assert text == f"{DONE}To: user@short.domain.invalid\r\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("John (Q) Public", '"John (Q) Public" <plain@example.test>'),
        ('Joe "x" Public', '"Joe \\"x\\" Public" <plain@example.test>'),
        ("Joe Public", "Joe Public <plain@example.test>"),
        ("Jöhn Public", "=?utf-8?Q?J=C3=B6hn_Public?= <plain@example.test>"),
    ],
)
def test_full_name(make_mapper: MakeMapper, name: str, expected: str) -> None:
    text = edit(make_mapper, "Message-Id: x\r\nDate: y\r\n", ENVELOPE._replace(full_name=name))
    assert text.endswith(f"\r\nFrom: {expected}\r\n")


def test_obsolete_from(make_mapper: MakeMapper) -> None:
    envelope = ENVELOPE._replace(full_name="Joe (Q) Public")
    text = edit(
        make_mapper, "Message-Id: x\r\nDate: y\r\n", envelope, header_from_format="obsolete"
    )
    assert text.endswith("From: plain@example.test (Joe \\(Q\\) Public)\r\n")


def test_null_sender_has_no_full_name(make_mapper: MakeMapper) -> None:
    envelope = ENVELOPE._replace(full_name="Joe", sender="")
    text = edit(make_mapper, "Message-Id: x\r\nDate: y\r\n", envelope)
    assert text.endswith("From: MAILER-DAEMON\r\n")


def test_too_many_addresses(make_mapper: MakeMapper) -> None:
    """What is discarded is said, and the last address that is shown is a whole one."""
    logged: list[str] = []
    LOG.open(lambda severity, head, text: logged.append(text), "postfix/cleanup")
    text = f"{DONE}To: a, b, c@d.test, e, f\r\n"
    assert "\r\nTo: a@example.test, b@example.test,\r\n" in edit(
        make_mapper, text, header_address_token_limit=6
    )
    assert [line for line in logged if "limit" in line] == [
        "warning: QID: header_address_token_limit: addresses beyond 6 tokens in To: header"
        " are discarded"
    ]


def test_undisclosed_recipients(make_mapper: MakeMapper) -> None:
    line = "To: undisclosed-recipients:;"
    assert edit(make_mapper, DONE, undisclosed_recipients_header=line) == f"{DONE}{line}\r\n"


def test_too_many_hops(make_mapper: MakeMapper) -> None:
    edit(make_mapper, "Received: x\r\n" * 2, hopcount_limit=3)
    with pytest.raises(Refused, match="too many hops"):
        edit(make_mapper, "Received: x\r\n" * 3, hopcount_limit=3)
