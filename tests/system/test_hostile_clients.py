"""Clients that keep the system busy, or do not listen: everybody else is served meanwhile."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.certificates import Authority
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port
from tests.system.processes import session_members, wait_until
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


HALF_OPEN: Final = 600
SESSION: Final = 20 << 10  # octets that a handshake may take whose first record is not complete


def begun_handshake() -> bytes:
    """What a client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    output = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), output, server_hostname="mail.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return output.read()


def server_of(system: MailSystem, port: int) -> psutil.Process:
    """The process that serves the port; there is one, as long as it has room."""
    found = [one for one in session_members(system.session) if f":{port}" in one.title()]
    assert len(found) == 1
    return psutil.Process(found[0].pid)


def test_half_open_handshakes(make_system: MakeSystem, tmp_path: Path) -> None:
    """They take little memory, hold nobody up, and leave nothing behind, wherever they stop."""
    system, port = make_system(), free_port()
    chain = system.config_directory / "chain.pem"
    chain.write_bytes(Authority(tmp_path).issue("mail.test").chain.read_bytes())
    system.configure(
        {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(chain),
            "smtpd_client_connection_count_limit": "0",
            "smtpd_sessions_per_process": "5000",
        },
        [f"127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes"],
    )
    system.allow("warning: TLS library problem")
    system.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def is_served() -> None:
        with smtplib.SMTP_SSL("127.0.0.1", port, timeout=PATIENCE, context=context) as client:
            assert client.ehlo()[0] == 250

    is_served()
    hello = begun_handshake()
    server = server_of(system, port)
    before, descriptors = server.memory_info().rss, server.num_fds() if os.geteuid() == 0 else 0
    with ExitStack() as clients:
        for said in (b"", hello[:3], hello[:-1]) * (HALF_OPEN // 3):
            client = socket.create_connection(("127.0.0.1", port), PATIENCE)
            clients.enter_context(client).sendall(said)
        is_served()  # and so all of them were accepted
        assert server.memory_info().rss - before < HALF_OPEN * SESSION
    with ExitStack() as clients:
        for said in (
            hello,
            hello.replace(b"mail.test", b"mail\0test"),
            b"RSET\r\n",
            hello[:50],
        ) * 50:
            client = socket.create_connection(("127.0.0.1", port), PATIENCE)
            clients.enter_context(client).sendall(said)
        is_served()
    if descriptors:
        wait_until(lambda: server.num_fds() <= descriptors, system.end_of_log)
    is_served()
