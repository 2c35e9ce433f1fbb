"""No room for the queue or for a mailbox: temporary errors, nothing is lost, nothing half done."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from typing import Final

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.mounts import fill, tmpfs
from tests.system.processes import wait_until
from tests.system.sink import PythonSink

LIMIT: Final = 200_000
SMALL: Final = b"Subject: small\r\n\r\nx\r\n"
LARGE: Final = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * 2000
FULL: Final = "4.3.1 Insufficient system storage"
EX_TEMPFAIL: Final = 75


@pytest.fixture
def system(make_system: MakeSystem) -> Iterator[MailSystem]:
    """Relays to a port where nobody listens yet; with a queue file system of 4 MB."""
    system = make_system(
        main={
            "message_size_limit": str(LIMIT),
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "queue_run_delay": "1s",
            "transport_retry_time": "1s",
            "notify_classes": "",
        },
        privileged=True,
    )
    system.allow("No space left on device|not enough free space|[Ii]nsufficient|cannot send notif")
    with tmpfs(system.queue_directory, "4m"):
        yield system
        system.halt()


def refusal(system: MailSystem, command: str) -> str:
    """The reply to a command that is refused."""
    with system.smtp() as client:
        client.ehlo("client.test")
        code, text = client.docmd(command)
    return f"{code} {text.decode()}"


@pytest.mark.root
def test_full_queue(system: MailSystem) -> None:
    port = free_port()
    system.route("relay.test", f"smtp:[127.0.0.1]:{port}")
    system.start()
    with system.smtp() as client:
        for number in range(5):
            client.sendmail("a@client.test", [f"x{number}@relay.test"], SMALL)
    system.wait_for_log("status=deferred", count=5)
    with system.smtp() as client:
        client.ehlo("client.test")
        client.mail("a@client.test")
        client.rcpt("late@relay.test")
        assert client.docmd("DATA")[0] == 354
        filler = fill(system.queue_directory)
        client.send(LARGE + b".\r\n")
        assert client.getreply() == (452, b"4.3.1 Error: insufficient system storage")
    wait_until(lambda: refusal(system, "MAIL FROM:<a@client.test>") == f"452 {FULL}")
    done = system.run("sendmail", "-f", "a@client.test", "y@relay.test", stdin=LARGE)
    assert done.returncode == EX_TEMPFAIL, done.stderr
    assert len(system.queued()) == 5
    with PythonSink(port) as sink:
        sink.wait_for(5)  # while there is no room
        filler.unlink()
        system.wait_for_queue_empty()
        wait_until(lambda: refusal(system, "MAIL FROM:<a@client.test>").startswith("250"))
        system.send("a@client.test", ["z@relay.test"], LARGE)
        system.sendmail("-f", "a@client.test", "y@relay.test", stdin=SMALL)
        sink.wait_for(7)
        system.wait_for_queue_empty()
        recipients = sorted(message.recipients[0].partition("@")[0] for message in sink.messages)
    assert recipients == ["x0", "x1", "x2", "x3", "x4", "y", "z"]


@pytest.mark.root
def test_full_maildrop(system: MailSystem) -> None:
    """While the system is down, sendmail leaves whole messages or nothing."""
    system.allow("unable to look up public/pickup")
    assert system.run("postfix", "check").returncode == 0
    user = system.user
    maildrop = system.queue_directory / "maildrop"
    system.sendmail("-f", "a@client.test", "alice@virtual.test", stdin=SMALL)
    filler = fill(system.queue_directory)
    for content in (SMALL, LARGE):
        done = system.run("sendmail", "alice@virtual.test", stdin=content, user=user)
        assert done.returncode == EX_TEMPFAIL, done.stderr
        assert len(list(maildrop.iterdir())) == 1
    filler.unlink()
    system.start()
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 1


@pytest.mark.root
def test_full_mailbox_file_system(make_system: MakeSystem) -> None:
    """Deferred, nothing half in the Maildir, the other mailbox is served."""
    system = make_system(
        main={"minimal_backoff_time": "1s", "queue_run_delay": "1s"}, privileged=True
    )
    alice = system.top / "vmail/alice"
    alice.mkdir()
    with tmpfs(alice, "1m"):
        for name in ("", "new", "cur", "tmp"):
            (alice / name).mkdir(exist_ok=True)
            (alice / name).chmod(0o777)
        filler = fill(alice)
        system.start()
        system.send("a@client.test", ["alice@virtual.test", "bob@virtual.test"], LARGE)
        system.wait_for_log("to=<bob@virtual.test>.*status=sent")
        system.wait_for_log("to=<alice@virtual.test>.*dsn=4.*status=deferred .*No space left")
        assert not list((alice / "new").iterdir())
        wait_until(lambda: not list((alice / "tmp").iterdir()))
        filler.unlink()
        system.wait_for_queue_empty()
        assert [len(path.read_bytes()) > 150_000 for path in (alice / "new").iterdir()] == [True]
        system.halt()


def test_queue_minfree(make_system: MakeSystem) -> None:
    system = make_system(main={"queue_minfree": "1000000000000000", "notify_classes": ""})
    system.allow("not enough free space")
    system.start()
    assert refusal(system, "MAIL FROM:<a@client.test>") == f"452 {FULL}"
    with pytest.raises(smtplib.SMTPSenderRefused):
        system.send("a@client.test", ["alice@virtual.test"], SMALL)
    assert not system.queued()
