"""qmqpd: mail from a client of the original, and from a connection by hand."""

from __future__ import annotations

import socket
import subprocess

import pytest

from libmail.smtp.qmqp import packet
from tests.system.conftest import MakeSystem
from tests.system.harness import MailSystem, free_port, need_tool

CONTENT = b"Subject: by QMQP\n\nbody\n"


class Qmqp:
    """A mail system with qmqpd, for whoever is in `clients`."""

    def __init__(self, make_system: MakeSystem, clients: str) -> None:
        self.port = free_port()
        self.system: MailSystem = make_system(
            main={"qmqpd_authorized_clients": clients, "qmqpd_error_delay": "1s"},
            master=[f"127.0.0.1:{self.port} inet n - n - - qmqpd"],
        )
        self.system.start()

    @property
    def address(self) -> str:
        return f"{self.system.user.pw_name}@{self.system.name}"

    def send(self, data: bytes) -> bytes:
        """The answer to a packet."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        return answer


def test_a_client_of_the_original(make_system: MakeSystem) -> None:
    qmqp = Qmqp(make_system, "127.0.0.0/8")
    source = need_tool("qmqp-source")
    addresses = ("-f", "sender@remote.test", "-t", qmqp.address)
    where = f"inet:127.0.0.1:{qmqp.port}"
    subprocess.run([source, "-s5", "-m20", "-l3000", *addresses, where], check=True, timeout=120)
    qmqp.system.wait_for_queue_empty()
    assert qmqp.system.mailbox.read_bytes().count(b"\nReturn-Path: <sender@remote.test>") == 20
    for words in (": client=", r"\]: disconnect from "):
        pattern = rf"{words}localhost\[127\.0\.0\.1\]"
        qmqp.system.wait_for_log(pattern, count=20)
        assert len(qmqp.system.log_lines(pattern)) == 20


def test_what_is_answered(make_system: MakeSystem) -> None:
    qmqp = Qmqp(make_system, "127.0.0.1")
    to = qmqp.address.encode()
    assert b":KOk: queued as " in qmqp.send(packet(CONTENT, b"", [to]))
    qmqp.system.wait_for_queue_empty()
    text = qmqp.system.mailbox.read_bytes()
    assert b"\n\tby mail.test (Postfix) with QMQP id " in text
    assert text.endswith(b"\n\nbody\n\n")
    qmqp.system.allow("no recipients specified")
    assert qmqp.send(packet(CONTENT, b"", [])) == b"31:DError: no recipients specified,"
    wrong = b"netstring format error while receiving QMQP packet header"
    assert qmqp.send(b"x") == b"58:D%s," % wrong
    qmqp.system.wait_for_log(rf": localhost\[127\.0\.0\.1\]: {wrong.decode()}")


@pytest.mark.parametrize("clients", ["", "!127.0.0.1, static:all"])
def test_nobody_else_may(make_system: MakeSystem, clients: str) -> None:
    qmqp = Qmqp(make_system, clients)
    wrong = b"Error: localhost[127.0.0.1] is not authorized to use this service"
    assert qmqp.send(b"") == b"%d:D%s," % (len(wrong) + 1, wrong)


def test_when_nobody_knows_who_may(make_system: MakeSystem) -> None:
    qmqp = Qmqp(make_system, "fail:nobody")
    qmqp.system.allow("qmqpd_authorized_clients: fail:nobody|fail:nobody lookup error")
    assert b":ZError: server configuration error," in qmqp.send(b"")
