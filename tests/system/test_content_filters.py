"""amavisd-new with SpamAssassin and ClamAV: after the queue as in lecture notes, and before it."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Final

import pytest

from tests.system.conftest import MakeSystem
from tests.system.filters import EICAR, GTUBE, Amavisd, Clamd
from tests.system.harness import MailSystem, free_port
from tests.system.processes import PATIENCE, wait_until

pytestmark = pytest.mark.root  # amavisd takes no configuration that its own account could change

SENDER: Final = "bob@virtual.test"
ALICE: Final = "alice@virtual.test"
HEADER: Final = b"From: bob@virtual.test\r\nTo: alice@virtual.test\r\nSubject: hello\r\n"
CLEAN: Final = (
    HEADER + b"Message-ID: <1@x.test>\r\nDate: Mon, 30 Nov 2026 10:00:00 +0000\r\nX-Folded: a\r\n"
    b"\tb  \r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n.\r\n..dots\r\nFrom here  \r\n\r\n\xc3\xa4\t\r\n"
    + b"long " * 180 + b"\r\n"
)  # fmt: skip
SPAM: Final = HEADER + b"\r\n" + GTUBE + b"\r\n"
VIRUS: Final = HEADER + b"\r\n" + EICAR + b"\r\n"

# Word for word what the notes say, but for the ports. Names without the final "s" of a parameter
# are unknown, and do nothing; nor does a word behind a blank, with which Postfix starts no smtpd.
NOTES_MAIN: Final = "smtp-filter:[127.0.0.1]:{}"
NOTES_MASTER: Final = """\
smtp-filter unix - - n - 10 smtp
  -o myhostname=localhost
|localhost:{} inet n - n - 10 smtpd
  -o content_filter=
  -o mynetworks=127.0.0.0/8
  -o smtpd_client_restriction=permit_mynetworks, reject
  -o smtpd_helo_restriction=
  -o smtpd_sender_restriction=
  -o smtpd_recipient_restriction=
  -o header_checks="""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What the test has started, stopped at its end."""
    with ExitStack() as started:
        yield started


def started_amavisd(stack: ExitStack, onward: int, fate: str) -> Amavisd:
    clamd = stack.enter_context(closing(Clamd()))
    return stack.enter_context(closing(Amavisd(clamd, onward, fate)))


def after_the_queue(make_system: MakeSystem, amavisd: Amavisd, **main: str) -> MailSystem:
    """The system of the notes; amavisd gives mail back to its second smtpd."""
    settings = {"content_filter": NOTES_MAIN.format(amavisd.port), **main}
    services = NOTES_MASTER.format(amavisd.onward).split("|")
    system = make_system(main=settings, master=services, privileged=True)
    system.start()
    return system


def delivered(system: MailSystem, count: int) -> list[bytes]:
    folder = system.top / "vmail/alice/new"
    wait_until(lambda: folder.is_dir() and len(list(folder.iterdir())) >= count, system.end_of_log)
    return system.maildir("alice")


def test_after_the_queue_as_in_the_notes(make_system: MakeSystem, stack: ExitStack) -> None:
    system = after_the_queue(make_system, started_amavisd(stack, free_port(), "D_DISCARD"))
    for content in (CLEAN, SPAM, VIRUS):
        system.send(SENDER, [ALICE], content)
    system.wait_for_log(r"relay=127.0.0.1\[127.0.0.1\]:\d+, .*status=sent \(250 .*queued as")
    discarded = r"relay=127.0.0.1\[127.0.0.1\]:\d+, .*status=sent \(250 2.7.0 Ok, discarded, id="
    system.wait_for_log(discarded + r".* - spam")
    system.wait_for_log(discarded + r".* - INFECTED: Test.EICAR")
    system.wait_for_queue_empty()
    (mail,) = delivered(system, 1)
    # All of it is as it came, below the trace of amavisd and of both passes.
    assert mail.endswith(b"\n" + CLEAN.replace(b"\r\n", b"\n"))
    assert mail.count(b"\nReceived: ") == 3


def test_what_the_filter_refuses_goes_back(make_system: MakeSystem, stack: ExitStack) -> None:
    system = after_the_queue(make_system, started_amavisd(stack, free_port(), "D_REJECT"))
    system.send(SENDER, [ALICE], SPAM)
    system.send(SENDER, [ALICE], VIRUS)
    for reason in ("spam", "INFECTED: Test.EICAR"):
        system.wait_for_log(rf"status=bounced \(host 127.0.0.1\[.*said: 554 5.7.0 .*{reason}")
    system.wait_for_queue_empty()
    bounces = (system.top / "vmail/bob").read_bytes()
    assert bounces.count(b"\nReturn-Path: <>\n") == 2
    assert not (system.top / "vmail/alice").exists()


@pytest.mark.parametrize("options", ["", "speed_adjust"], ids=["direct", "speed_adjust"])
def test_before_the_queue(make_system: MakeSystem, stack: ExitStack, options: str) -> None:
    """What amavisd says is the answer to the client."""
    onward = free_port()
    amavisd = started_amavisd(stack, onward, "D_REJECT")
    settings = {
        "smtpd_proxy_filter": f"127.0.0.1:{amavisd.port}",
        "smtpd_proxy_options": options,
    }
    inner = f"127.0.0.1:{onward} inet n - n - - smtpd -o smtpd_proxy_filter="
    system = make_system(main=settings, master=[inner], privileged=True)
    system.start()
    with system.smtp() as client:
        for content, reason in ((SPAM, b"spam"), (VIRUS, b"INFECTED: Test.EICAR")):
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail(SENDER, [ALICE], content)
            assert refused.value.smtp_code == 554
            assert isinstance(refused.value.smtp_error, bytes)
            assert reason in refused.value.smtp_error
        client.sendmail(SENDER, [ALICE], CLEAN)
    (mail,) = delivered(system, 1)
    assert mail.endswith(b"\n" + CLEAN.replace(b"\r\n", b"\n"))
    system.wait_for_queue_empty()


COUNT: Final = 40
KILLS: Final = 2


def numbers(mails: Sequence[bytes]) -> set[int]:
    """The numbers that `play` gave them."""
    return {int(mail.partition(b"\nX-Number: ")[2].partition(b"\n")[0]) for mail in mails}


def play(system: MailSystem, amavisd: Amavisd, count: int, kills: int) -> None:
    """Sends mail, kills and starts the filter again meanwhile, waits for all mail."""
    with system.smtp() as client:
        for number in range(count):
            text = b"X-Number: %d\r\n" % number + CLEAN
            client.sendmail(SENDER, [ALICE], text)
            if number % (count // kills) == count // kills - 1:
                here = len(list((system.top / "vmail/alice").rglob("new/*")))
                delivered(system, here + 1)  # it is at work
                amavisd.kill()
                amavisd.start()
                assert system.run("postqueue", "-f").returncode == 0
    system.wait_for_queue_empty(PATIENCE + count)


def test_killed_under_load(make_system: MakeSystem, stack: ExitStack) -> None:
    """None is lost; those that amavisd had given back before it died may come twice."""
    amavisd = started_amavisd(stack, free_port(), "D_DISCARD")
    quick = {"queue_run_delay": "1s", "minimal_backoff_time": "1s", "maximal_backoff_time": "2s"}
    system = after_the_queue(make_system, amavisd, **quick)
    play(system, amavisd, COUNT, KILLS)
    mails = system.maildir("alice")
    assert numbers(mails) == set(range(COUNT))
    assert all(mail.endswith(b"\n" + CLEAN.replace(b"\r\n", b"\n")) for mail in mails)
    assert len(mails) <= COUNT + KILLS * amavisd.servers
