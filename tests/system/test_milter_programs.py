"""Milters of Debian in a running system: each alone, three in a row, killed and started again under
load."""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.system.conftest import MakeSystem
from tests.system.filters import (
    EICAR,
    GTUBE,
    ClamavMilter,
    Clamd,
    Filter,
    Mimedefang,
    Opendmarc,
    Pymilter,
    Rspamd,
    SpamassMilter,
    Spamd,
)
from tests.system.harness import MailSystem
from tests.system.mounts import in_place_of
from tests.system.processes import wait_until
from tests.unit.libmail.dns.fake_server import FakeServer

SENDER: Final = "a@x.test"
ALICE: Final = "alice@virtual.test"
HEADER: Final = b"From: a@x.test\r\nTo: alice@virtual.test\r\nSubject: hello\r\n"
CLEAN: Final = HEADER + b"Message-ID: <1@x.test>\r\n\r\nnothing to be found\r\n"

F = TypeVar("F", bound=Filter)


@pytest.fixture
def filters() -> Iterator[ExitStack]:
    """What the test has started, stopped at its end."""
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, one: F) -> F:
    return stack.enter_context(closing(one))


def system_with(make_system: MakeSystem, *milters: Filter, **main: str) -> MailSystem:
    endpoints = " ".join([milter.endpoint for milter in milters])
    settings = {"smtpd_milters": endpoints, "milter_default_action": "tempfail", **main}
    system = make_system(main=settings)
    system.start()
    return system


def delivered(system: MailSystem, count: int = 1) -> list[bytes]:
    folder = system.top / "vmail/alice/new"
    wait_until(lambda: folder.is_dir() and len(list(folder.iterdir())) == count)
    return system.maildir("alice")


def refusal(system: MailSystem, content: bytes) -> tuple[int, bytes]:
    """How a message was refused after its end."""
    with system.smtp() as client, pytest.raises(smtplib.SMTPDataError) as refused:
        client.sendmail(SENDER, [ALICE], content)
    system.wait_for_log("milter-reject: END-OF-MESSAGE from ")
    error = refused.value.smtp_error
    assert isinstance(error, bytes)
    return refused.value.smtp_code, error


def field(content: bytes, name: str) -> list[bytes]:
    """The values of the fields of a name, in one line each."""
    head = content.partition(b"\n\n")[0].replace(b"\n ", b" ").replace(b"\n\t", b" ")
    start = name.encode() + b":"
    return [line[len(start) :].strip() for line in head.split(b"\n") if line.startswith(start)]


# each alone


def test_clamav_milter(make_system: MakeSystem, filters: ExitStack) -> None:
    milter = started(filters, ClamavMilter(started(filters, Clamd())))
    system = system_with(make_system, milter)
    system.send(SENDER, [ALICE], CLEAN)
    assert refusal(system, HEADER + b"\r\n" + EICAR + b"\r\n") == (
        550,
        b"5.7.1 found Test.EICAR.UNOFFICIAL",
    )
    (content,) = delivered(system)
    assert field(content, "X-Virus-Status") == [b"Clean"]
    assert content.endswith(b"\n\nnothing to be found\n")


def test_spamass_milter(make_system: MakeSystem, filters: ExitStack) -> None:
    milter = started(filters, SpamassMilter(started(filters, Spamd())))
    system = system_with(make_system, milter)
    system.send(SENDER, [ALICE], CLEAN)
    code, text = refusal(system, HEADER + b"\r\n" + GTUBE + b"\r\n")
    assert (code, text) == (550, b"5.7.1 Blocked by SpamAssassin")
    (content,) = delivered(system)
    assert [value.split(b",")[0] for value in field(content, "X-Spam-Status")] == [b"No"]
    assert content.endswith(b"\n\nnothing to be found\n")


def test_rspamd(make_system: MakeSystem, filters: ExitStack) -> None:
    system = system_with(make_system, started(filters, Rspamd()))
    system.send(SENDER, [ALICE], CLEAN)
    code, text = refusal(system, HEADER + b"\r\n" + GTUBE + b"\r\n")
    assert (code, text) == (554, b"5.7.1 Gtube pattern")
    (content,) = delivered(system)
    assert len(field(content, "X-Rspamd-Server")) == 1
    assert content.endswith(b"\n\nnothing to be found\n")


def with_attachment(name: str) -> bytes:
    message = MIMEMultipart()
    message["From"], message["Subject"] = SENDER, "see this"
    message.attach(MIMEText("see the attachment"))
    part = MIMEText("echo something to be removed")
    part.add_header("Content-Disposition", "attachment", filename=name)
    message.attach(part)
    return message.as_bytes().replace(b"\n", b"\r\n")


def test_mimedefang(make_system: MakeSystem, filters: ExitStack) -> None:
    system = system_with(make_system, started(filters, Mimedefang()))
    assert refusal(system, with_attachment("a.exe")) == (554, b"5.7.1 no programs, please")
    system.send(SENDER, [ALICE], with_attachment("a.sh"))
    (content,) = delivered(system)
    assert field(content, "X-Defanged") == [b"looked at"]
    assert b"see the attachment" in content
    assert b"A script was here." in content
    assert b"to be removed" not in content


CHANGES: Final = """
    def envfrom(self, sender, *parameters):
        self.parameters = parameters
        return Milter.CONTINUE

    def envrcpt(self, recipient, *parameters):
        if recipient.startswith("<nobody"):
            self.setreply("550", "5.1.1", "not", "here", "100%%")
            return Milter.REJECT
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Parameters", " ".join(self.parameters))
        self.addheader("X-First", "1st", 0)
        self.chgheader("Subject", 1, "changed\\n\\tand folded")
        self.chgheader("X-Drop", 2, "")
        self.chgheader("X-New", 1, "made")
        self.replacebody(b"new body\\r\\n")
        self.replacebody(b".with a dot\\r\\n")
        self.addrcpt("<carol@else.test>")
        self.delrcpt("<bob@virtual.test>")
        self.chgfrom("<changed@x.test>")
        return Milter.ACCEPT
"""


def test_pymilter_changes_all_there_is(make_system: MakeSystem, filters: ExitStack) -> None:
    milter = started(filters, Pymilter(CHANGES))
    system = system_with(make_system, milter)
    content = HEADER + b"X-Drop: 1\r\nX-Drop: 2\r\nX-Drop: 3\r\n\r\nold body\r\n"
    with system.smtp() as client:
        client.ehlo()
        client.mail(SENDER, ["SIZE=100", "BODY=8BITMIME"])
        for recipient in (ALICE, "bob@virtual.test"):
            assert client.rcpt(recipient)[0] == 250
        refused = client.rcpt("nobody@else.test")
        assert refused == (550, b"5.1.1 not\n5.1.1 here\n5.1.1 100%")
        assert client.data(content)[0] == 250
    (mail,) = delivered(system)
    assert mail.startswith(b"Return-Path: <changed@x.test>\n")
    assert field(mail, "X-Parameters") == [b"SIZE=100 BODY=8BITMIME"]
    assert mail.index(b"X-First: 1st\n") < mail.index(b"Received: ")
    assert b"\nSubject: changed\n\tand folded\n" in mail
    assert field(mail, "X-Drop") == [b"1", b"3"]
    assert field(mail, "X-New") == [b"made"]
    assert mail.endswith(b"\n\nnew body\n.with a dot\n")
    system.wait_for_log("to=<carol@else.test>.*status=sent")
    system.wait_for_queue_empty()
    assert not system.log_lines("to=<bob")


def test_pymilter_puts_mail_on_hold(make_system: MakeSystem, filters: ExitStack) -> None:
    holds = (
        "    def eom(self):\n        self.quarantine('look at it')\n        return Milter.ACCEPT\n"
    )
    system = system_with(make_system, started(filters, Pymilter(holds)))
    system.send(SENDER, [ALICE], CLEAN)
    system.wait_for_log("milter-hold: END-OF-MESSAGE from .*milter triggers HOLD action")
    wait_until(lambda: len(list((system.queue_directory / "hold").iterdir())) == 1)


NAME_SERVER: Final = "127.0.53.54"
POLICIES: Final = (
    '_dmarc.strict.example TXT "v=DMARC1; p=reject"',
    '_dmarc.lax.example TXT "v=DMARC1; p=none"',
    '_dmarc.x.test TXT "v=DMARC1; p=reject"',
)


@pytest.mark.root
def test_opendmarc(make_system: MakeSystem, filters: ExitStack, tmp_path: Path) -> None:
    with (
        in_place_of(Path("/etc/resolv.conf"), f"nameserver {NAME_SERVER}\n", tmp_path),
        FakeServer(POLICIES, (NAME_SERVER, 53)),
    ):
        system = system_with(make_system, started(filters, Opendmarc()))
        code, text = refusal(system, CLEAN.replace(b"From: a@x.test", b"From: b@strict.example"))
        assert (code, text) == (550, b"5.7.1 rejected by DMARC policy for strict.example")
        system.send(SENDER, [ALICE], CLEAN.replace(b"From: a@x.test", b"From: b@lax.example"))
        (content,) = delivered(system)
        assert b"dmarc=fail (p=none dis=none) header.from=lax.example" in b" ".join(
            field(content, "Authentication-Results")
        )
        system.send(SENDER, [ALICE], CLEAN)
        results = [b" ".join(field(one, "Authentication-Results")) for one in delivered(system, 2)]
        assert [b"dmarc=pass" in result for result in results].count(True) == 1


# in a row, and under load


def test_three_in_a_row(make_system: MakeSystem, filters: ExitStack) -> None:
    milters = (
        started(filters, ClamavMilter(started(filters, Clamd()))),
        started(filters, SpamassMilter(started(filters, Spamd()))),
        started(filters, Rspamd()),
    )
    system = system_with(make_system, *milters)
    system.send(SENDER, [ALICE], CLEAN)
    virus = refusal(system, HEADER + b"\r\n" + EICAR + b"\r\n")
    assert virus == (550, b"5.7.1 found Test.EICAR.UNOFFICIAL")
    spam = refusal(system, HEADER + b"\r\n" + GTUBE + b"\r\n")
    assert spam == (550, b"5.7.1 Blocked by SpamAssassin")
    system.send(SENDER, [ALICE], CLEAN)
    for mail in delivered(system, 2):
        for name in ("X-Virus-Status", "X-Spam-Status", "X-Rspamd-Server"):
            assert len(field(mail, name)) == 1, name
        assert mail.endswith(b"\n\nnothing to be found\n")


MARK: Final = """
    def eom(self):
        self.addheader("X-Seen", "yes")
        return Milter.ACCEPT
"""
MESSAGES: Final = 120
SENDERS: Final = 4


def send_all(system: MailSystem, retry: bool, over: Callable[[], object]) -> list[bytes]:
    """Sends MESSAGES in sessions side by side; returns what was accepted.

    retry: until each is accepted. over: done as soon as a fourth are, half, three fourths.
    """
    accepted: list[bytes] = []
    unexpected: list[int] = []
    numbers = iter(range(MESSAGES))
    lock = threading.Lock()

    def submit(text: bytes) -> bool:
        try:
            system.send(SENDER, [ALICE], HEADER + b"X-Number: " + text + b"\r\n\r\nx\r\n")
        except smtplib.SMTPRecipientsRefused as error:
            code = error.recipients[ALICE][0]
        except smtplib.SMTPResponseException as error:
            code = error.smtp_code
        else:
            return True
        if not retry or code not in (421, 451):
            unexpected.append(code)
            return True
        return False

    def run() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            text = b"%d" % number
            while not submit(text):
                pass
            accepted.append(text)

    def enough(part: int) -> bool:
        return len(accepted) >= MESSAGES * part // 4

    threads = [threading.Thread(target=run) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for part in range(1, 4):
        wait_until(partial(enough, part))
        over()
    for thread in threads:
        thread.join()
    assert not unexpected
    return accepted


@pytest.mark.parametrize("action", ["accept", "tempfail"])
def test_killed_under_load(make_system: MakeSystem, filters: ExitStack, action: str) -> None:
    """With "accept" no mail waits for a Milter that is dead; with "tempfail" none passes it."""
    milter = started(filters, Pymilter(MARK))
    system = system_with(make_system, milter, milter_default_action=action)
    system.allow("connect to Milter service|can't read SMFIC_|can't write SMFIC_")

    def again() -> None:
        milter.kill()
        milter.start()

    accepted = send_all(system, action == "tempfail", again)
    assert len(accepted) == MESSAGES
    mails = delivered(system, MESSAGES)
    assert sorted(field(mail, "X-Number")[0] for mail in mails) == sorted(accepted)
    seen = [field(mail, "X-Seen") for mail in mails]
    assert seen.count([b"yes"]) + seen.count([]) == MESSAGES
    assert seen.count([b"yes"]) > 0
    if action == "tempfail":
        assert seen.count([]) == 0
    system.wait_for_queue_empty()
