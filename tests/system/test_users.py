"""As root: what users can do to the mail system through its public sockets and maildrop."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from libmail.ipc.codec import Unframer
from libmail.ipc.messages import CODEC, Recipient, Recipients, SubmitOpen, SubmitResult
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.system.processes import session_members, wait_until

pytestmark = pytest.mark.root

MESSAGE = b"Subject: x\n\nbody\n"
FORGE = """import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
    client.connect(sys.argv[1])
    for _ in range(1000):
        client.send(b"Nov 30 12:00:00 mail postfix/smtpd[1]: fatal: forged")
"""
OPEN = SubmitOpen("a@x.test", False, "", 0, "", "", 0, 0)


def stranger(name: str) -> int:
    """The user id of somebody who is not the mail system."""
    return pwd.getpwnam(name).pw_uid


@contextmanager
def acting(uid: int) -> Iterator[None]:
    """The kernel tells the other end of a socket the effective user id at connect(2)."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def connect(system: MailSystem, service: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(str(system.queue_directory / "public" / service))
    return client


@pytest.fixture
def system(make_system: MakeSystem) -> MailSystem:
    one = make_system(privileged=True)
    one.start()
    return one


def submit(system: MailSystem, sender: str = "bob@virtual.test") -> None:
    system.sendmail("-f", sender, "alice@virtual.test", stdin=MESSAGE)


@pytest.mark.parametrize("service", ["pickup", "qmgr", "showq", "flush", "cleanup"])
def test_idle_connections_of_a_user_shut_out_nobody(system: MailSystem, service: str) -> None:
    system.allow("too many connections of one user")
    system.allow("connection from a user outside of the mail system")
    held = []
    with acting(stranger("games")):
        for _ in range(1500):
            try:
                held.append(connect(system, service))
            except BlockingIOError:
                break
    submit(system)
    system.wait_for_queue_empty()
    assert system.run("mailq").stdout.strip() == b"Mail queue is empty"
    assert len(system.log_lines("too many connections|outside of the mail system")) <= 3
    for client in held:
        client.close()


def test_who_says_nothing_is_dropped(system: MailSystem) -> None:
    with acting(stranger("games")):
        clients = [connect(system, service) for service in ("pickup", "qmgr", "flush")]
    assert [client.recv(1) for client in clients] == [b"", b"", b""]
    for client in clients:
        client.close()


def test_no_address_ends_a_process(system: MailSystem) -> None:
    """Five in a row would have throttled the service."""
    long = "x" * 40_000 + "@virtual.test"
    for address in (long, "a\nb@virtual.test", "x" * 2040):
        for _ in range(6):
            client = connect(system, "pickup")
            recipients = Recipients((Recipient(address, address),))
            client.sendall(CODEC.encode(OPEN) + CODEC.encode(recipients) + b"\x80\0\0\0")
            assert result_of(client).exit_status in (0, 65)
            client.close()
    submit(system)
    system.wait_for_log("to=<alice@virtual.test>.*status=sent")
    assert system.log_lines("killed by signal|exit status|throttling") == []


def result_of(client: socket.socket) -> SubmitResult:
    unframer = Unframer(CODEC)
    while True:
        data = client.recv(65536)
        assert data, "closed without an answer"
        unframer.receive_data(data)
        for message in unframer:
            if isinstance(message, SubmitResult):
                return message


def test_who_may_not_submit_is_told_at_once(make_system: MakeSystem) -> None:
    system = make_system(privileged=True, main={"authorized_submit_users": "root"})
    system.start()
    with acting(stranger("games")):
        client = connect(system, "pickup")
    client.sendall(CODEC.encode(OPEN))
    assert result_of(client).exit_status == 77
    client.close()


def test_recipients_are_bounded_by_their_size(system: MailSystem) -> None:
    with acting(stranger("games")):
        client = connect(system, "pickup")
    address = "x" * 900 + "@virtual.test"
    frame = CODEC.encode(Recipients((Recipient(address, address),) * 500))
    client.sendall(CODEC.encode(OPEN))
    frames = b"".join([frame] * 10)

    def send() -> None:
        for _ in range(200):
            client.sendall(frames)

    with pytest.raises(OSError):  # closed, however the kernel says it
        send()
    client.close()
    submit(system)
    system.wait_for_queue_empty()


def test_junk_in_maildrop_is_told_of_once(system: MailSystem) -> None:
    system.allow("maildrop/")
    system.allow("maildrop: ")
    maildrop = system.queue_directory / "maildrop"
    uid = stranger("games")
    for number in range(200):
        path = maildrop / f"AAAAAA{number:04d}".replace("0", "B")
        path.mkdir(mode=0o700)
        os.chown(path, uid, uid)
    for _ in range(20):
        client = connect(system, "pickup")
        client.sendall(b"W")
        client.close()
    submit(system)
    system.wait_for_queue_empty()
    before = len(system.log_lines())
    for _ in range(20):
        client = connect(system, "pickup")
        client.sendall(b"W")
        client.close()
    submit(system)
    system.wait_for_log("to=<alice@virtual.test>.*status=sent", count=2)
    assert len(system.log_lines()) < before + 20
    for path in maildrop.iterdir():
        shutil.rmtree(path)


def test_forged_log_lines(system: MailSystem) -> None:
    uid = stranger("games")
    subprocess.run(
        ["/usr/bin/python3", "-c", FORGE, str(system.queue_directory / "public/postlog")],
        user=uid, group=uid, extra_groups=[], check=True, cwd="/",
    )  # fmt: skip
    system.wait_for_log(rf"postfix/postlog\[\d+\]: uid={uid}: fatal: forged$")
    submit(system)
    system.wait_for_queue_empty()
    assert 100 <= len(system.log_lines("forged")) <= 200  # the next interval may have begun
    system.allow("forged")


def test_services_have_a_limit_of_memory(system: MailSystem) -> None:
    submit(system)
    system.wait_for_queue_empty()

    def limits() -> list[str]:
        found = []
        for process in session_members(system.session):
            text = Path(f"/proc/{process.pid}/limits").read_text()
            (line,) = [one for one in text.splitlines() if one.startswith("Max address space")]
            if "cleanup" in process.title():
                found.append(line.split()[3])
        return found

    wait_until(lambda: bool(limits()))
    assert all(4 << 30 < int(limit) < 40 << 30 for limit in limits())
