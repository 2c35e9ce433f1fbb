"""Clients that keep the system busy, or do not listen: everybody else is served meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem
from tests.unit.waiting import PATIENCE

TRANSACTION: Final = b"EHLO x\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<alice@virtual.test>\r\n"
FLOODS: Final = {
    "NOOP": b"NOOP\r\n",
    "unknown": b"FOO\r\n",
    "BDAT 0": b"BDAT 0\r\n",
    "BDAT 1": b"BDAT 1\r\nx",
    "RCPT": b"RCPT TO:<alice@virtual.test>\r\n",
}
MANY: Final = 20_000
CONTENT: Final = b"Subject: test\r\n\r\nhello\r\n"


@pytest.fixture
def system(make_system: MakeSystem) -> MailSystem:
    system = make_system(
        main={
            "smtpd_error_sleep_time": "0",
            "smtpd_forbid_unauth_pipelining": "no",
            "smtpd_hard_error_limit": "100000000",
            "smtpd_junk_command_limit": "100000000",
            "smtpd_recipient_limit": "100000000",
            "smtpd_timeout": "10s",
            "notify_classes": "",
        }
    )
    system.start()
    return system


@contextmanager
def sending(system: MailSystem, data: bytes, *, reading: bool) -> Iterator[threading.Thread]:
    """A client that sends this again and again, until the block is left or it is cut off."""
    client = socket.create_connection(("127.0.0.1", system.smtp_port), PATIENCE)
    over = threading.Event()

    def send() -> None:
        try:
            client.sendall(TRANSACTION)
            while not over.is_set():
                client.sendall(data)
        except OSError:
            return

    def read() -> None:
        try:
            while client.recv(1 << 16):
                pass
        except OSError:
            return

    threads = [threading.Thread(target=send)]
    if reading:
        threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    try:
        yield threads[0]
    finally:
        over.set()
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
        client.close()


@pytest.mark.parametrize("command", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_commands(system: MailSystem, command: bytes) -> None:
    """Two others are greeted and served, while one client never stops."""
    system.allow("null BDAT request")
    with sending(system, command * MANY, reading=True):
        for _ in range(2):
            system.send("a@client.test", ["alice@virtual.test"], CONTENT)
    system.wait_for_queue_empty()
    assert len(system.maildir("alice")) == 2


def test_a_client_that_never_reads(system: MailSystem) -> None:
    """It is cut off after smtpd_timeout, and what it sends meanwhile stays in the network."""
    with sending(system, b"EHLO x\r\n" * MANY, reading=False) as sender:
        system.wait_for_log("timeout after EHLO")
        sender.join(PATIENCE)
        assert not sender.is_alive()
